"""The reference is a flow: exact inverse, and a log-determinant that is its Jacobian's."""

import numpy as np
import pytest
import torch

from fastglow.checkpoint.weights import expected_shapes
from fastglow.config import WaveGlowConfig, WNConfig
from fastglow.errors import InputError
from fastglow.reference import WaveGlow


def make(seed: int = 0, **kwargs: object) -> WaveGlow:
    """A small network with weights large enough that every term matters."""
    wn = WNConfig(
        n_layers=int(kwargs.pop("n_layers", 3)),
        n_channels=int(kwargs.pop("n_channels", 8)),
        kernel_size=int(kwargs.pop("kernel_size", 3)),
    )
    defaults = {
        "n_mel_channels": 5,
        "n_flows": 6,
        "n_group": 8,
        "n_early_every": 2,
        "hop_length": 32,
        "upsample_kernel": 128,
    }
    config = WaveGlowConfig(wn=wn, **{**defaults, **kwargs})
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = WaveGlow(config).double()
    for flow in model.WN:
        for parameter in flow.end.parameters():
            parameter.data = 0.2 * torch.randn(
                parameter.shape, generator=generator, dtype=torch.float64
            )
    return model


CASES = {
    "published": {},
    "alternating": {"coupling": "alternating"},
    "kernel 5": {"kernel_size": 5},
    "kernel 1": {"kernel_size": 1},
    "one layer": {"n_layers": 1},
    "no early outputs": {"n_early_size": 0},
    "hop not a multiple of the group": {"hop_length": 30, "upsample_kernel": 90},
    "upsampling without overlap": {"upsample_kernel": 32},
    "group 2": {"n_group": 2, "n_early_size": 0},
    "four early channels": {"n_group": 12, "n_early_size": 4, "hop_length": 36},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_forward_inverts_infer(case: dict[str, object]) -> None:
    model = make(**case)
    mel = torch.randn(2, 5, 7, dtype=torch.float64)
    noise = torch.randn(2, model.config.samples(7), dtype=torch.float64)
    with torch.no_grad():
        audio = model.infer(mel, noise, 0.6)
        z = model(audio, mel).z
        again = model.infer(mel, z)
    assert audio.shape == noise.shape
    assert (z - 0.6 * noise).norm() / noise.norm() < 1e-10
    assert (again - audio).norm() / audio.norm() < 1e-10


@pytest.mark.parametrize("coupling", ["fixed", "alternating"])
def test_log_det_is_the_jacobians(coupling: str) -> None:
    model = make(coupling=coupling, n_flows=4, n_channels=4, n_layers=2)
    mel = torch.randn(1, 5, 1, dtype=torch.float64)
    audio = torch.randn(1, 32, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x, mel).z, audio)
    expected = torch.linalg.slogdet(jacobian.reshape(32, 32))[1]
    found = model(audio, mel)
    torch.testing.assert_close(found.log_s[0] + found.log_det, expected, rtol=1e-10, atol=1e-10)
    nll = (0.5 * found.z.square().sum() / 0.49 - expected) / 32
    torch.testing.assert_close(found.nll(0.7)[0], nll)


def test_parameters_have_the_published_names_and_shapes() -> None:
    model = make()
    shapes = {name: tuple(t.shape) for name, t in model.to_tensors().items()}
    assert shapes == expected_shapes(model.config)
    copy = WaveGlow.from_tensors(model.config, model.to_tensors())
    for name, tensor in copy.to_tensors().items():
        np.testing.assert_array_equal(tensor, model.to_tensors()[name])


def test_new_networks_start_as_a_rotation() -> None:
    model = WaveGlow(make().config).double()
    audio, mel = torch.randn(1, 128, dtype=torch.float64), torch.randn(1, 5, 4).double()
    latent = model(audio, mel)
    torch.testing.assert_close(latent.z.norm(), audio.norm(), rtol=1e-6, atol=0)
    assert abs(float(latent.log_s.detach())) < 1e-12
    assert abs(float(latent.log_det.detach())) < 1e-4


def test_rows_do_not_mix() -> None:
    model = make()
    mel, noise = torch.randn(3, 5, 4).double(), torch.randn(3, 128).double()
    together = model.infer(mel, noise)
    alone = model.infer(mel[1:2], noise[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-12, atol=1e-12)


def test_bad_shapes_are_named() -> None:
    model = make()
    mel = torch.zeros(1, 5, 4).double()
    with pytest.raises(InputError, match="expected \\[1, 128\\]"):
        model.infer(mel, torch.zeros(1, 120).double())
    with pytest.raises(InputError, match="136 samples"):
        model(torch.zeros(1, 136).double(), mel)
    with pytest.raises(InputError, match=r"\[B, 5, frames\]"):
        model.infer(torch.zeros(1, 6, 4).double(), torch.zeros(1, 128).double())
