"""Each term of the spectral loss against an independent computation."""

import librosa
import numpy as np
import pytest
import torch
from scipy import signal

from fastglow.audio.bands import filter_bank
from fastglow.config import MelConfig
from fastglow.errors import InputError
from fastglow.training.losses import (
    LossConfig,
    Resolution,
    SpectralLoss,
    frame,
    magnitude,
    tacotron_mel,
)


@pytest.mark.parametrize(
    ("rate", "n_fft", "n_mels", "fmax"),
    [(22050, 1024, 80, 8000.0), (22050, 2048, 160, None), (8000, 128, 12, 4000.0)],
)
def test_filters_are_librosas(rate: int, n_fft: int, n_mels: int, fmax: float | None) -> None:
    expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=0, fmax=fmax)
    found = filter_bank(MelConfig(n_fft, n_fft, fmax=fmax), n_mels, rate)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_frames_are_slices() -> None:
    x = torch.arange(2 * 50.0).reshape(2, 50)
    frames = frame(x, 16, 4)
    assert frames.shape == (2, 9, 16)
    for i in range(9):
        torch.testing.assert_close(frames[:, i], x[:, 4 * i : 4 * i + 16])


def test_magnitude_is_scipys() -> None:
    x = torch.randn(1, 2048, dtype=torch.float64)
    window = torch.hann_window(256, dtype=torch.float64)
    found = magnitude(x, window, 64, floor=0.0)[0]
    sft = signal.ShortTimeFFT(window.numpy(), 64, 1.0)
    expected = np.abs(sft.stft(x[0].numpy(), p0=2, p1=2 + found.shape[0])).T
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_mel_is_librosas() -> None:
    x = np.random.default_rng(0).standard_normal(22050).astype(np.float32) * 0.1
    padded = torch.from_numpy(np.pad(x, 512, mode="reflect"))[None]
    filters = torch.tensor(filter_bank(MelConfig(), 80, 22050)).float()
    found = tacotron_mel(padded, torch.hann_window(1024), filters, 256)[0]
    spectrum = np.abs(librosa.stft(x, n_fft=1024, hop_length=256, pad_mode="reflect"))
    basis = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=0, fmax=8000)
    expected = np.log(np.maximum(basis @ spectrum, 1e-5))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_terms_are_what_they_say() -> None:
    config = LossConfig(
        resolutions=(Resolution(256, 64, 10), Resolution(128, 32)),
        mel=2.0, log_magnitude=3.0, convergence=5.0, compressed=7.0,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    x, y = (rng.standard_normal((2, 1024)) for _ in range(2))
    found = SpectralLoss(config, 8000)(torch.from_numpy(x).float(), torch.from_numpy(y).float())
    logs, ratios, louds, mels = [], [], [], []
    for n in (256, 128):
        window, starts = signal.get_window("hann", n), range(0, 1024 - n + 1, n // 4)
        a, b = (
            np.stack([np.abs(np.fft.rfft(s[:, i : i + n] * window)) for i in starts], 1)
            for s in (x, y)
        )
        logs.append(np.abs(np.log(a / b)).mean())
        ratios.append(np.sqrt(((a - b) ** 2).sum() / (b**2).sum()))
        louds.append(np.abs(a**0.3 - b**0.3).mean() / (b**0.3).mean())
        if n == 256:
            basis = librosa.filters.mel(sr=8000, n_fft=n, n_mels=10) * 4
            mels.append(np.abs(np.log(a @ basis.T) - np.log(b @ basis.T)).mean())
    expected = {
        "mel": np.mean(mels), "log_magnitude": np.mean(logs), "convergence": np.mean(ratios),
        "compressed": np.mean(louds),
    }  # fmt: skip
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=2e-4), name
    total = sum(getattr(config, n) * v for n, v in expected.items())
    assert float(found["loss"]) == pytest.approx(total, rel=2e-4)


def test_equal_audio_costs_nothing_and_silence_has_a_gradient() -> None:
    loss = SpectralLoss(LossConfig(), 22050)
    x = torch.randn(1, 4096)
    assert float(loss(x, x)["loss"]) == 0
    silence = torch.zeros(1, 4096, requires_grad=True)
    loss(silence, x)["loss"].backward()
    assert silence.grad is not None
    assert torch.isfinite(silence.grad).all()


@pytest.mark.parametrize(
    "config",
    [
        LossConfig(resolutions=()),
        LossConfig(resolutions=(Resolution(64, 16),), log_magnitude=0.0, convergence=0.0),
    ],
)
def test_a_loss_of_nothing_is_refused(config: LossConfig) -> None:
    with pytest.raises(InputError, match="no term"):
        SpectralLoss(config, 8000)


def test_twins_are_pushed_apart_by_their_share_of_half_the_distance() -> None:
    config = LossConfig((Resolution(256, 64, 10), Resolution(128, 32)), repulsion=0.8)
    generated, target = torch.randn(4, 1024), torch.randn(2, 1024).repeat(2, 1)
    loss, twin = SpectralLoss(config, 8000), torch.tensor([2, 3, 0, 1])
    found, alone = loss(generated, target, twin), loss(generated, target)
    pairs = loss(generated, generated[twin])
    far, near = [], []  # the convergence between twins is relative to the recording
    for n in (256, 128):
        window, starts = signal.get_window("hann", n), range(0, 1024 - n + 1, n // 4)
        a, b, y = (
            np.abs(np.fft.rfft([[s[i : i + n] * window for i in starts] for s in x.numpy()]))
            for x in (generated, generated[twin], target)
        )
        far.append(np.linalg.norm(a - b) / np.linalg.norm(y))
        near.append(np.linalg.norm(a - b) / np.linalg.norm(b))
    assert float(pairs["convergence"]) == pytest.approx(np.mean(near), rel=1e-4)
    twins = 15 * pairs["mel"] + 2.5 * pairs["log_magnitude"] + 2.5 * np.mean(far)
    assert float(found["twins"]) == pytest.approx(float(twins), rel=1e-4)
    assert float(found["loss"]) == pytest.approx(float(alone["loss"] - 0.4 * twins), rel=1e-4)


def test_with_repulsion_noise_is_best_told_by_noise_without_it_by_a_hum() -> None:
    frames = 4096
    truth, target = torch.randn(2, frames * 64).chunk(2)
    hum = torch.zeros(2, frames * 64)
    hum[:, 32::64] = 1.0  # once a frame: the same magnitude in every bin
    targets, twin = target.repeat(2, 1), torch.tensor([1, 0])
    noise = torch.cat([truth, torch.randn(1, frames * 64)])
    gains = torch.logspace(0, 1, 60)
    for repulsion, noise_is_best in ((0.0, False), (1.0, True)):
        config = LossConfig((Resolution(64, 64),), 0.0, 1.0, 0.0, repulsion=repulsion)
        loss = SpectralLoss(config, 8000)
        nearest = min(float(loss(gain * hum, targets, twin)["loss"]) for gain in gains)
        assert (float(loss(noise, targets, twin)["loss"]) < nearest) == noise_is_best
