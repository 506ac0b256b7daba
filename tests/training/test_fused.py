"""The Triton kernels, interpreted on the CPU in fp32, against plain autograd.

On a GPU the same comparison runs in the kernels' own precision.
"""

import importlib
import os
from pathlib import Path

import pytest
import torch

from fastglow.training.network import InverseNetwork

from wn_cases import CASES, Direction, compare, generated, latents, networks

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="Triton is not installed")
fused = importlib.import_module("fastglow.training.fused")


def arranged(case: dict[str, object], device: str) -> tuple[InverseNetwork, InverseNetwork]:
    """The same network twice: plain, and through the kernels."""
    plain, kernels = networks(case, device)
    flows = kernels.parameters_of_flows()
    kernels._couplings = lambda mel: fused.couplings(  # type: ignore[method-assign]
        kernels.config, flows, *kernels.conditioning(mel)
    )
    kernels._mix = lambda x, w: fused.tall_product(x, w.T)  # type: ignore[method-assign]
    return plain, kernels


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU test covers it")
@pytest.mark.parametrize("direction", [generated, latents])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_interpreted(
    case: dict[str, object], direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "FORWARD", torch.float32)
    monkeypatch.setattr(fused, "BACKWARD", torch.float32)
    monkeypatch.setattr(fused, "_SPLIT", 7)
    compare(*arranged(case, "cpu"), direction, 1e-5, 1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("direction", [generated, latents])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_on_the_gpu(case: dict[str, object], direction: Direction) -> None:
    compare(*arranged(case, "cuda"), direction, 5e-3, 5e-2)


def test_far_latents_stay_within_the_kernels_range() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    _, kernels = arranged(CASES["three flows"], device)
    mel, audio = torch.randn(2, 5, 7, device=device), torch.randn(2, 224, device=device)
    with torch.no_grad():
        assert all(torch.isfinite(t).all() for t in kernels.latents(1e7 * audio, mel))


def test_every_kernel_is_launched_by_a_tested_function() -> None:
    source = Path(fused.__file__).with_name("wn_launch.py").read_text()
    kernels = Path(fused.__file__).with_name("wn_kernels.py").read_text()
    names = [line[4 : line.index("(")] for line in kernels.splitlines() if line.startswith("def ")]
    for name in names:
        assert name.startswith("_") or f"kernels.{name}[" in source
