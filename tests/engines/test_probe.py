"""Looking for a GPU on a machine that has none: the driver is a stand-in."""

import sys

import pytest

from fastglow.engines.choose import choose_engine
from fastglow.engines.cuda import probe
from fastglow.errors import EngineError

from models import TINY


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
    found = choose_engine(TINY, "cuda:1", imported=False)
    assert (found.device, found.precision, found.conditioning) == ("cuda:1", "fp16", "phases")
