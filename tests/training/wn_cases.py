"""Small networks, and the comparison of a faster arrangement of one with plain autograd."""

from collections.abc import Callable

import torch

from fastglow.config import WaveGlowConfig, WNConfig
from fastglow.training.network import InverseNetwork

Direction = Callable[[InverseNetwork, torch.Tensor, torch.Tensor], torch.Tensor]
CASES = {
    "three flows": {"n_flows": 3},
    "alternating, one layer": {
        "n_flows": 2, "coupling": "alternating", "wn": WNConfig(n_layers=1, n_channels=16),
    },
    "kernel 5": {"n_flows": 1, "wn": WNConfig(n_layers=2, n_channels=16, kernel_size=5)},
    "four layers": {"n_flows": 2, "wn": WNConfig(n_layers=4, n_channels=16)},  # reach 8
}  # fmt: skip


def networks(case: dict[str, object], device: str = "cpu") -> tuple[InverseNetwork, InverseNetwork]:
    """The same network twice, the first in plain PyTorch."""
    defaults = {
        "n_mel_channels": 5, "n_early_every": 2, "hop_length": 32, "upsample_kernel": 128,
        "wn": WNConfig(n_layers=3, n_channels=16),
    }  # fmt: skip
    torch.manual_seed(0)
    plain = InverseNetwork.untrained(WaveGlowConfig(**{**defaults, **case})).to(device)
    for flow in plain.parameters_of_flows():
        torch.nn.init.normal_(flow.end_weight, std=0.2)
    twin = InverseNetwork.from_tensors(plain.config, plain.to_tensors()).to(device)
    plain.fused = lambda mel: False  # type: ignore[method-assign]
    return plain, twin


def generated(network: InverseNetwork, mel: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    audio: torch.Tensor = network(mel, signal, 0.6)
    return audio


def latents(network: InverseNetwork, mel: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    z, log_s, log_det = network.latents(0.3 * signal, mel)
    return z + (log_s[:, None] + log_det) / 224


def compare(
    plain: InverseNetwork, twin: InverseNetwork, direction: Direction, forward: float,
    backward: float, frames: int = 7,
) -> None:  # fmt: skip
    """Results and the gradient of every parameter that has one, in norm."""
    device, samples = plain.upsample_bias.device, plain.config.samples(frames)
    mel = torch.randn(2, 5, frames, device=device)
    signal = torch.randn(2, samples, device=device)
    gradient = torch.randn(2, samples, device=device)
    expected, found = direction(plain, mel, signal), direction(twin, mel, signal)
    assert (found - expected).norm() / expected.norm() < forward
    expected.backward(gradient)
    found.backward(gradient)
    for (name, p), q in zip(plain.named_parameters(), twin.parameters(), strict=True):
        if p.numel() and p.requires_grad:
            assert p.grad is not None
            assert q.grad is not None
            assert (q.grad - p.grad).norm() <= backward * p.grad.norm(), name
