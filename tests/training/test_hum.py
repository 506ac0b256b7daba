"""The loss on what repeats itself every hop."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastglow.config import MelConfig, WaveGlowConfig
from fastglow.errors import InputError
from fastglow.training.hum import BANDS, HOPS, HumLoss
from fastglow.training.losses import LossConfig, Resolution
from fastglow.training.objective import TrainConfig, check_shapes

HOP = 32


def noise(seed: int, samples: int = 64 * HOPS * HOP) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((2, samples))).float()


def test_the_profile_is_what_it_says() -> None:
    x = noise(0, 3 * HOPS * HOP)
    size, step = HOPS * HOP, HOPS * HOP // 4
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    expected = np.zeros((BANDS, HOPS))
    spectra = [
        np.log(np.abs(np.fft.rfft(row[at : at + size] * window)))
        for row in x.double().numpy()
        for at in range(0, x.shape[1] - size + 1, step)
    ]
    level = np.mean(spectra, axis=0)[1:]  # of every bin but the first
    for band in range(BANDS):
        lines = level.reshape(BANDS, -1, HOPS)[band]
        expected[band] = (lines - lines.mean(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(HumLoss(HOP).profile(x).numpy(), expected, atol=1e-4)


def test_noise_is_like_noise_and_a_hum_is_not_whatever_the_level() -> None:
    loss = HumLoss(HOP)
    hum = noise(2, HOP).repeat(1, 64 * HOPS)  # the same every hop
    between, heard = float(loss(noise(0), noise(1))), float(loss(hum + noise(0), noise(1)))
    assert between < 0.05 < 0.2 < heard
    assert float(loss(0.1 * (hum + noise(0)), noise(1))) == pytest.approx(heard, rel=1e-2)
    assert float(loss(noise(0), noise(0))) == 0


def test_going_down_its_gradient_takes_the_hum_away() -> None:
    loss, hum = HumLoss(HOP), noise(2, HOP).repeat(1, 64 * HOPS)
    x = (0.5 * hum + noise(0)).requires_grad_()
    before = float(loss(x.detach(), noise(1)))
    for _ in range(30):
        (gradient,) = torch.autograd.grad(loss(x, noise(1)), x)
        x = (x - 0.2 * gradient / gradient.square().mean().sqrt() * 0.1).detach().requires_grad_()
    assert float(loss(x.detach(), noise(1))) < 0.5 * before


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of 16"):
        HumLoss(40)
    model = WaveGlowConfig(hop_length=64, upsample_kernel=256, mel=MelConfig(256, 256))
    resolutions = (Resolution(256, 64, 10),)
    config = TrainConfig(1, segment=512, loss=LossConfig(resolutions, hum=1.0))
    with pytest.raises(InputError, match="segments of 512 samples under an STFT of 1024"):
        check_shapes(model, config)
    check_shapes(model, replace(config, segment=1024))
