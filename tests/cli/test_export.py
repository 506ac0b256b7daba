"""``fastglow export``."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fastglow.checkpoint import save_safetensors
from fastglow.cli.main import app
from fastglow.errors import InputError

from models import TINY, random_weights

onnx = pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_safetensors(random_weights(TINY), tmp_path / "model", dtype="float32")
    return tmp_path / "model"


@pytest.mark.parametrize("form", ["published", "phases"])
def test_a_checkpoint_becomes_a_graph(form: str, model: Path, tmp_path: Path) -> None:
    from onnx.reference import ReferenceEvaluator

    out = tmp_path / "new" / "m.onnx"
    run = CliRunner().invoke(
        app, ["export", "onnx", str(model), "-o", str(out), "--conditioning", form]
    )
    assert run.exit_code == 0, run.output
    assert f"{form} conditioning" in run.output
    mel = np.zeros((1, TINY.n_mel_channels, 2), np.float32)
    noise = np.ones((1, TINY.samples(2)), np.float32)
    (audio,) = ReferenceEvaluator(str(out)).run(None, {"mel": mel, "noise": noise})
    assert audio.shape == noise.shape
    assert np.isfinite(audio).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "m.bin"], "ending in .onnx"),
        (["-o", "m.onnx", "--conditioning", "both"], "conditioning"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str, model: Path) -> None:
    run = CliRunner().invoke(app, ["export", "onnx", str(model), *arguments])
    assert isinstance(run.exception, InputError)
    assert message in str(run.exception)
