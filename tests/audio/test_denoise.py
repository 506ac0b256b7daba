"""The bias denoiser, against torch.stft and torch.istft."""

from __future__ import annotations

import clips
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastglow.audio import Denoiser
from fastglow.errors import InputError

BIAS = 0.05 * np.random.default_rng(0).standard_normal(88 * 256)


def oracle(audio: np.ndarray, strength: float, n_fft: int, hop: int) -> np.ndarray:
    """waveglow/denoiser.py's arithmetic in torch, float64."""
    window = torch.hann_window(n_fft, dtype=torch.float64)

    def spectrum(wave: np.ndarray) -> torch.Tensor:
        wave = torch.from_numpy(wave.astype(np.float64))
        return torch.stft(wave, n_fft, hop, n_fft, window, return_complex=True)

    noisy, bias = spectrum(audio), spectrum(BIAS)[:, :1].abs()
    clean = torch.polar(torch.clamp(noisy.abs() - strength * bias, min=0), noisy.angle())
    return torch.istft(clean, n_fft, hop, n_fft, window, length=len(audio)).numpy()


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 256), (2048, 300), (512, 100), (256, 64)])
@pytest.mark.parametrize("samples", [1100, 20480, 20481, 20735, None])
@pytest.mark.parametrize("strength", [0.01, 0.3, 5.0])
def test_equals_torch(n_fft, hop, samples, strength):
    audio = clips.wave(clips.FILES[0])[:samples]
    denoised = Denoiser(BIAS, n_fft, hop)(audio, strength)
    assert denoised.dtype == np.float32
    assert denoised.shape == audio.shape
    assert np.abs(denoised - oracle(audio, strength, n_fft, hop)).max() <= 1e-7


@pytest.mark.parametrize("block", [1, 2, 7, 100])
def test_the_block_changes_no_bit(block):
    audio = clips.wave(clips.FILES[1])
    wanted = Denoiser(BIAS)(audio, 0.1)
    assert np.array_equal(Denoiser(BIAS, block=block)(audio, 0.1), wanted)


@settings(max_examples=60, deadline=None)
@given(samples=st.integers(1, 3000), hop=st.integers(1, 64))
def test_any_length_comes_back_whole(samples, hop):
    audio = np.random.default_rng(samples).uniform(-1, 1, samples).astype(np.float32)
    assert np.abs(Denoiser(BIAS, 256, hop)(audio, 1e-9) - audio).max() < 1e-6


def test_strength_zero_and_nothing_change_nothing():
    audio = clips.wave(clips.FILES[0])
    assert Denoiser(BIAS)(audio, 0.0) is audio
    assert Denoiser(BIAS)(audio[:0], 1.0).shape == (0,)


def test_silence_stays_silent():
    assert not Denoiser(BIAS)(np.zeros(3000, np.float32), 0.5).any()


def test_rows_are_denoised_alone():
    rows = clips.wave(clips.FILES[0])[:12000].reshape(2, 3, 2000)
    denoiser = Denoiser(BIAS)
    denoised = denoiser(rows, 0.1)
    assert denoised.shape == rows.shape
    assert np.array_equal(denoised[1, 2], denoiser(rows[1, 2], 0.1))


def test_takes_out_the_bias():
    hum = 0.02 * np.cos(np.pi / 4 * np.arange(66150))  # a whistle at rate / 8
    cleaned = Denoiser(hum)(hum, 1.0)[1024:-1024]
    assert np.abs(cleaned).max() < 0.02 / 1000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((np.zeros((2, 900)),), "expected \\[samples\\]"),
        ((np.zeros(0),), "expected \\[samples\\]"),
        ((np.array([np.nan]),), "NaN"),
        ((BIAS, 1023), "even n_fft"),
        ((BIAS, 1024, 512), "n_fft / 4"),
        ((BIAS, 1024, 0), "n_fft / 4"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(InputError, match=says):
        Denoiser(*arguments)


@pytest.mark.parametrize("strength", [-0.1, np.nan, np.inf])
def test_bad_strength(strength):
    with pytest.raises(InputError, match="expected 0 or more"):
        Denoiser(BIAS)(np.zeros(2000, np.float32), strength)
