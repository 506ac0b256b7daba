"""Mels too long to be held: computed and written part by part, the same files."""

from dataclasses import replace

import numpy as np
import pytest

from fastglow import job as job_module
from fastglow.checkpoint import save_safetensors
from fastglow.config import WNConfig
from fastglow.errors import OutputError
from fastglow.job import Recipe, Task

from models import TINY, random_input, random_weights

CONFIG = replace(TINY, n_flows=3, wn=WNConfig(n_layers=5, n_channels=8))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_safetensors(random_weights(CONFIG), folder)
    return str(folder)


def vocoded(recipe, source, target):
    warnings = []
    outcomes = list(recipe.load().run([Task(source, target)], warnings.append))
    assert len(outcomes) == 1
    return outcomes[0]


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize("scale", ["ln", "log10"])
@pytest.mark.parametrize("frames", [41, 64, 333])
def test_the_same_file(tmp_path, monkeypatch, model, frames, scale, subtype):
    mel = random_input(CONFIG, frames)[0][0].astype(np.float32)
    np.save(tmp_path / "a.npy", mel)
    recipe = Recipe(model, device="cpu", mel_scale=scale, subtype=subtype, seed=7)
    whole = vocoded(recipe, tmp_path / "a.npy", tmp_path / "whole.wav")
    monkeypatch.setattr(job_module, "LONG", 40)
    monkeypatch.setattr(job_module, "STRETCH", {"cpu": 32})
    parts = vocoded(recipe, tmp_path / "a.npy", tmp_path / "parts.wav")
    assert parts.written == whole.written
    assert (tmp_path / "parts.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()


def test_one_that_cannot_be_written_ends_the_run(tmp_path, monkeypatch, model):
    np.save(tmp_path / "a.npy", random_input(CONFIG, 100)[0][0].astype(np.float32))
    monkeypatch.setattr(job_module, "LONG", 40)

    def full(*_, **__):
        raise OutputError("no room")

    monkeypatch.setattr(job_module, "open_audio", full)
    job = Recipe(model, device="cpu").load()
    tasks = [Task(tmp_path / "a.npy", tmp_path / f"{i}.wav") for i in range(3)]
    outcomes = []
    with pytest.raises(OutputError, match="no room"):
        outcomes.extend(job.run(tasks, lambda message: None))
    assert not list(tmp_path.glob("*.wav"))
