"""The losses on what repeats itself: every hop, every group."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastglow.config import MelConfig, WaveGlowConfig
from fastglow.errors import InputError
from fastglow.training.hum import BANDS, HOPS, WINDOW, HumLoss, WhistleLoss
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


@pytest.mark.parametrize("group", [8, 12, 5])
def test_the_excess_is_what_it_says(group: int) -> None:
    x = noise(0, 3 * WINDOW) * torch.tensor([[1.0], [0.01]])  # a quiet row counts like a loud one
    size = WINDOW - WINDOW % (4 * group)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    starts = range(0, x.shape[1] - size + 1, size // 4)
    rows = [
        np.mean([np.abs(np.fft.rfft(row[at : at + size] * window)) ** 2 for at in starts], axis=0)
        for row in x.double().numpy()
    ]
    level = np.log(rows).mean(axis=0) / 2
    expected = [
        level[line] - np.mean([level[line + side * o] for side in (-1, 1) for o in range(3, 25)])
        for line in (k * size // group for k in (1, 2, 3))
        if line + 24 <= size // 2
    ]
    np.testing.assert_allclose(WhistleLoss(group).excess(x).numpy(), expected, atol=1e-4)


def whistling(samples: int) -> torch.Tensor:
    return 0.2 * torch.cos(2 * torch.pi / 8 * torch.arange(samples))


def test_a_whistle_counts_by_how_far_it_stands_out_whatever_the_level() -> None:
    loss, clean, other = WhistleLoss(8), noise(0, 4 * WINDOW), noise(1, 4 * WINDOW)
    heard = clean + whistling(4 * WINDOW)
    between, whistles = float(loss(clean, other)), float(loss(heard, other))
    assert between < 0.3 < whistles
    assert float(loss(0.1 * heard, other)) == pytest.approx(whistles, rel=1e-2)
    assert float(loss(heard, heard)) == 0


def test_going_down_its_gradient_takes_the_whistle_away() -> None:
    loss, clean = WhistleLoss(8), noise(0, 4 * WINDOW)
    x = (clean + whistling(4 * WINDOW)).requires_grad_()
    for i in range(60):
        (gradient,) = torch.autograd.grad(loss(x, clean), x)
        step = 0.01 * (1 - i / 60) * gradient / gradient.square().mean().sqrt()
        x = (x - step).detach().requires_grad_()
    heard = clean + whistling(4 * WINDOW)
    assert float(loss(x.detach(), clean)) < 0.5 * float(loss(heard, clean))
    window, line = np.hanning(WINDOW), WINDOW // 8
    after, before = (
        np.abs(np.fft.rfft(window * s[0, :WINDOW].numpy()))[line] for s in (x.detach(), heard)
    )
    assert after < 0.7 * before  # not by what is around it alone


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of 16"):
        HumLoss(40)
    with pytest.raises(InputError, match="n_group of 4 or more, not 2"):
        WhistleLoss(2)
    model = WaveGlowConfig(hop_length=64, upsample_kernel=256, mel=MelConfig(256, 256))
    resolutions = (Resolution(256, 64, 10),)
    config = TrainConfig(1, segment=512, loss=LossConfig(resolutions, hum=1.0))
    with pytest.raises(InputError, match="segments of 512 samples under an STFT of 1024"):
        check_shapes(model, config)
    check_shapes(model, replace(config, segment=1024))
    whistles = replace(config, loss=LossConfig(resolutions, whistles=1.0))
    with pytest.raises(InputError, match="segments of 512 samples under an STFT of 4096"):
        check_shapes(model, whistles)
