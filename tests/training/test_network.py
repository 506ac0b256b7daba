"""The training network computes what the reference computes, and exports what it imports."""

import numpy as np
import pytest
import torch

from fastglow.config import WaveGlowConfig, WNConfig
from fastglow.errors import InputError
from fastglow.reference import WaveGlow
from fastglow.training.network import InverseNetwork

CASES = {
    "published": {},
    "alternating": {"coupling": "alternating"},
    "kernel 5": {"wn": WNConfig(n_layers=2, n_channels=8, kernel_size=5)},
    "one layer": {"wn": WNConfig(n_layers=1, n_channels=8)},
    "no early outputs": {"n_early_size": 0},
    "upsampling without overlap": {"upsample_kernel": 32},
}


def reference(**kwargs: object) -> WaveGlow:
    defaults = {
        "n_mel_channels": 5, "n_flows": 6, "n_early_every": 2, "hop_length": 32,
        "upsample_kernel": 128, "wn": WNConfig(n_layers=3, n_channels=8),
    }  # fmt: skip
    torch.manual_seed(0)
    model = WaveGlow(WaveGlowConfig(**{**defaults, **kwargs})).double()
    for flow in model.WN:
        flow.end.weight.data.normal_(std=0.2)
        flow.end.bias.data.normal_(std=0.2)
    return model


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_equals_the_reference(case: dict[str, object]) -> None:
    model = reference(**case)
    network = InverseNetwork.from_tensors(model.config, model.to_tensors()).double()
    mel = torch.randn(2, 5, 7, dtype=torch.float64)
    noise = torch.randn(2, model.config.samples(7), dtype=torch.float64)
    expected = model.infer(mel, noise, 0.6)
    assert (network(mel, noise, 0.6) - expected).norm() / expected.norm() < 3e-7  # fp32 weights
    sigma = torch.tensor([[0.6], [0.1]], dtype=torch.float64)
    rows = network(mel, noise, sigma)
    quiet = model.infer(mel, noise, 0.1)
    assert (rows[1] - quiet[1]).norm() / quiet[1].norm() < 3e-7


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_export_inverts_import(case: dict[str, object]) -> None:
    model = reference(**case)
    before = model.to_tensors()
    after = InverseNetwork.from_tensors(model.config, before).to_tensors()
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert after[name].shape == tensor.shape
        np.testing.assert_allclose(after[name], tensor, atol=1e-6)


def exact(case: dict[str, object]) -> tuple[WaveGlow, InverseNetwork]:
    """The reference and the network with the same weights in float64."""
    model = reference(**case).float().double()  # so that fp32 holds what is copied
    network = InverseNetwork.from_tensors(model.config, model.to_tensors()).double()
    for flow, mix in zip(network.parameters_of_flows(), model.convinv, strict=True):
        flow.mixing.data = torch.linalg.inv(mix.matrix.detach())
    return model, network


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_latents_equal_the_references(case: dict[str, object]) -> None:
    model, network = exact(case)
    mel = torch.randn(2, 5, 7, dtype=torch.float64)
    audio = 0.3 * torch.randn(2, model.config.samples(7), dtype=torch.float64)
    expected, found = model(audio, mel), network.latents(audio, mel)
    torch.testing.assert_close(found, expected)
    expected.nll().mean().backward()
    found.nll().mean().backward()
    for flow, wn, mix in zip(network.parameters_of_flows(), model.WN, model.convinv, strict=True):
        torch.testing.assert_close(flow.start_weight.grad, wn.start.weight.grad.squeeze(-1).T)
        torch.testing.assert_close(flow.end_bias.grad, wn.end.bias.grad)
        w = mix.matrix.detach()  # the parameter is its inverse
        dw = mix.conv.weight.grad.squeeze(-1)
        torch.testing.assert_close(flow.mixing.grad, -w.T @ dw @ w.T)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_latents_are_the_noise_that_audio_is_made_from(case: dict[str, object]) -> None:
    _, network = exact(case)
    mel = torch.randn(2, 5, 7, dtype=torch.float64)
    noise = torch.randn(2, network.config.samples(7), dtype=torch.float64)
    z = network.latents(network(mel, noise), mel).z
    torch.testing.assert_close(z, noise)
    torch.testing.assert_close(network(mel, z), network(mel, noise))


def test_starts_as_the_reference_starts() -> None:
    config = reference().config
    torch.manual_seed(1)
    network = InverseNetwork.untrained(config)
    audio = network(torch.randn(1, 5, 4), torch.randn(1, 128))
    assert torch.isfinite(audio).all()
    assert all(float(f.end_weight.detach().abs().max()) == 0 for f in network.parameters_of_flows())


def test_a_ragged_hop_is_refused() -> None:
    with pytest.raises(InputError, match="hop 30"):
        InverseNetwork(WaveGlowConfig(hop_length=30, upsample_kernel=90))
