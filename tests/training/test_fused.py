"""The Triton kernels, interpreted on the CPU in fp32, against plain autograd.

On a GPU the same comparison runs in the kernels' own precision.
"""

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fastglow.config import WaveGlowConfig, WNConfig
from fastglow.training.network import InverseNetwork

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="Triton is not installed")
fused = importlib.import_module("fastglow.training.fused")

Direction = Callable[[InverseNetwork, torch.Tensor, torch.Tensor], torch.Tensor]
CASES = {
    "three flows": {"n_flows": 3},
    "alternating, one layer": {
        "n_flows": 2, "coupling": "alternating", "wn": WNConfig(n_layers=1, n_channels=16),
    },
    "kernel 5": {"n_flows": 1, "wn": WNConfig(n_layers=2, n_channels=16, kernel_size=5)},
}  # fmt: skip


def networks(case: dict[str, object], device: str) -> tuple[InverseNetwork, InverseNetwork]:
    """The same network twice: plain, and through the kernels."""
    defaults = {
        "n_mel_channels": 5, "n_early_every": 2, "hop_length": 32, "upsample_kernel": 128,
        "wn": WNConfig(n_layers=3, n_channels=16),
    }  # fmt: skip
    torch.manual_seed(0)
    plain = InverseNetwork.untrained(WaveGlowConfig(**{**defaults, **case})).to(device)
    for flow in plain.parameters_of_flows():
        torch.nn.init.normal_(flow.end_weight, std=0.2)
    kernels = InverseNetwork.from_tensors(plain.config, plain.to_tensors()).to(device)
    plain.fused = lambda mel: False  # type: ignore[method-assign]
    flows = kernels.parameters_of_flows()
    kernels._couplings = lambda mel: fused.couplings(  # type: ignore[method-assign]
        kernels.config, flows, *kernels.conditioning(mel)
    )
    kernels._mix = lambda x, w: fused.tall_product(x, w.T)  # type: ignore[method-assign]
    return plain, kernels


def generated(network: InverseNetwork, mel: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    audio: torch.Tensor = network(mel, signal, 0.6)
    return audio


def latents(network: InverseNetwork, mel: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    z, log_s, log_det = network.latents(0.3 * signal, mel)
    return z + (log_s[:, None] + log_det) / 224


def compare(
    case: dict[str, object], direction: Direction, device: str, forward: float, backward: float
) -> None:
    plain, kernels = networks(case, device)
    mel = torch.randn(2, 5, 7, device=device)
    signal = torch.randn(2, 224, device=device)
    gradient = torch.randn(2, 224, device=device)
    expected, found = direction(plain, mel, signal), direction(kernels, mel, signal)
    assert (found - expected).norm() / expected.norm() < forward
    expected.backward(gradient)
    found.backward(gradient)
    for (name, p), q in zip(plain.named_parameters(), kernels.parameters(), strict=True):
        if p.numel():
            assert p.grad is not None
            assert q.grad is not None
            assert (q.grad - p.grad).norm() <= backward * p.grad.norm(), name


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU test covers it")
@pytest.mark.parametrize("direction", [generated, latents])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_interpreted(
    case: dict[str, object], direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "FORWARD", torch.float32)
    monkeypatch.setattr(fused, "BACKWARD", torch.float32)
    monkeypatch.setattr(fused, "_SPLIT", 7)
    compare(case, direction, "cpu", 1e-5, 1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("direction", [generated, latents])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_on_the_gpu(case: dict[str, object], direction: Direction) -> None:
    compare(case, direction, "cuda", 5e-3, 5e-2)


def test_far_latents_stay_within_the_kernels_range() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    _, kernels = networks(CASES["three flows"], device)
    mel, audio = torch.randn(2, 5, 7, device=device), torch.randn(2, 224, device=device)
    with torch.no_grad():
        assert all(torch.isfinite(t).all() for t in kernels.latents(1e7 * audio, mel))


def test_every_kernel_is_launched_by_a_tested_function() -> None:
    source = Path(fused.__file__).with_name("wn_launch.py").read_text()
    kernels = Path(fused.__file__).with_name("wn_kernels.py").read_text()
    names = [line[4 : line.index("(")] for line in kernels.splitlines() if line.startswith("def ")]
    for name in names:
        assert name.startswith("_") or f"kernels.{name}[" in source
