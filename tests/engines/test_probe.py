"""Looking for a GPU on a machine that has none: the driver is a stand-in."""

import sys
from pathlib import Path

import pytest

from fastglow.checkpoint import save_safetensors
from fastglow.cli.corpus import local
from fastglow.engines.choose import choose_engine
from fastglow.engines.cuda import probe
from fastglow.errors import EngineError
from fastglow.job import Recipe

from models import TINY, random_weights


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shows an old GPU and a new one; PyTorch cannot be imported."""
    gpus = [probe.Gpu("Old", (7, 5), 8 << 30), probe.Gpu("New", (9, 0), 80 << 30)]
    monkeypatch.setattr(probe, "visible", lambda: gpus)
    monkeypatch.setattr(probe, "MODULES", ())
    monkeypatch.setitem(sys.modules, "torch", None)


def test_why_a_gpu_cannot_be_used_is_told(driver: None) -> None:
    for index, why in ((0, "Old has compute capability 7.5"), (1, "PyTorch"), (2, "no GPU 2")):
        with pytest.raises(EngineError, match=f"{why}.*; device='cpu' needs no GPU"):
            choose_engine(TINY, f"cuda:{index}")
    found = choose_engine(TINY)
    assert (found.device, found.precision) == ("cpu", "fp32")
    assert "Old" in found.gpu


def test_what_runs_is_known_without_pytorch(driver: None) -> None:
    found = choose_engine(TINY, "cuda:1", ask_torch=False)
    assert (found.device, found.precision, found.conditioning) == ("cuda:1", "fp16", "phases")


def test_what_starts_several_processes_needs_no_pytorch(driver: None, tmp_path: Path) -> None:
    save_safetensors(random_weights(TINY), tmp_path / "model", "float32")
    with local(Recipe(str(tmp_path / "model"), device="cuda:1,cuda:1")) as (facts, _):
        assert (facts.device, facts.precision) == ("cuda", "fp16")
