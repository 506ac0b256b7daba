from contextlib import contextmanager

import pytest

from fastglow.bench.model import Model
from fastglow.checkpoint import save_safetensors

from models import TINY, random_weights


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A tiny random model as a checkpoint."""
    folder = tmp_path_factory.mktemp("tiny")
    weights = random_weights(TINY)
    save_safetensors(weights, folder, dtype="float32")
    return Model("tiny", folder, weights, random=True)


@pytest.fixture
def small_models(monkeypatch, tiny):
    """Random models of a sweep are the tiny one, whatever its channels."""

    @contextmanager
    def model(config, seed):
        yield tiny

    monkeypatch.setattr("fastglow.bench.sweep.random_model", model)
