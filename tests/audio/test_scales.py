"""Conversions between mel scales: exact where they can be, close where they cannot."""

from __future__ import annotations

import clips
import numpy as np
import pytest
from conventions import CONVENTIONS
from hypothesis import given, settings
from hypothesis import strategies as st

from fastglow.audio import SCALES, check_mel_scale, convert_mel, mel_spectrogram
from fastglow.config import MelConfig, WaveGlowConfig
from fastglow.errors import InputError

EXACT = ["ln", "log10", "db", "magnitude", "norm01", "norm-sym1", "norm-sym4"]
POWER = ["ln-power", "db-power", "power"]
CEILING, BOTTOM = np.log(10.0), np.log(1e-4)  # what the normalised scales can hold: 20 to -80 dB


def test_every_scale_is_tested():
    assert {*EXACT, *POWER} == set(SCALES)


@pytest.mark.parametrize("scale", EXACT)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_round_trip(scale, seed):
    low = BOTTOM if scale.startswith("norm") else np.log(1e-5)
    ln = np.random.default_rng(seed).uniform(low, CEILING, (80, 7))
    mel = CONVENTIONS[scale][1](np.exp(ln), np.exp(2 * ln))
    back = convert_mel(mel, scale)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, ln, atol=2e-6)


@pytest.mark.parametrize("scale", POWER)
@pytest.mark.parametrize("path", clips.FILES, ids=lambda p: p.stem)
def test_power_scales_come_close_on_speech(scale, path):
    audio = clips.wave(path)
    wanted = mel_spectrogram(audio, 22050)
    back = convert_mel(CONVENTIONS[scale][1](None, clips.librosa_mel(audio, power=2.0)), scale)
    loud = wanted > np.log(1e-4) if scale == "db-power" else wanted > np.log(2e-5)
    error = (back - wanted)[loud & (back > back.min())]
    assert error.min() > -1e-3  # Cauchy and Schwarz
    assert np.median(error) < 0.15
    assert np.percentile(error, 95) < 0.5


@pytest.mark.parametrize("scale", POWER)
def test_power_scales_are_exact_on_a_flat_spectrum(scale):
    config = WaveGlowConfig(sampling_rate=48000, mel=MelConfig(2048, 2048, 0.0, None))
    area = np.exp(clips_area(config))
    mel = CONVENTIONS[scale][1](None, np.repeat(area[:, None] * 0.3**2, 5, axis=1))
    back = convert_mel(mel, scale, config)
    np.testing.assert_allclose(back, np.log(area * 0.3)[:, None].repeat(5, 1), atol=1e-5)


def clips_area(config: WaveGlowConfig) -> np.ndarray:
    impulse = np.zeros(8 * 2048)
    impulse[:: config.hop_length] = 0
    impulse[4096] = 1  # a flat spectrum of magnitude 1 under the middle of the window
    return np.log(clips.librosa_mel(impulse, config)[:, 4096 // config.hop_length])


@pytest.mark.parametrize("scale", sorted(SCALES))
def test_the_floor_holds_and_nothing_warns(scale):
    values = np.array([[-1e9, 0.0], [-200.0, 1e-30]] * 40, dtype=np.float32)
    back = convert_mel(values, scale)
    assert np.isfinite(back).all()
    assert scale == "ln" or back.min() >= np.float32(np.log(1e-5))


def test_ln_is_left_alone():
    mel = np.array([[-12.0, 3.0]], dtype=np.float32)
    assert convert_mel(mel, "ln") is mel


def test_a_batch_is_its_rows():
    mels = np.random.default_rng(0).uniform(-80, 0, (3, 80, 5))
    whole = convert_mel(mels, "db-power")
    assert np.array_equal(whole[1], convert_mel(mels[1], "db-power"))


def test_bad_arguments():
    with pytest.raises(InputError, match="mel scale 'log2'; expected one of ln, log10"):
        check_mel_scale("log2")
    with pytest.raises(InputError, match=r"\[81, 4\]; expected \[80, frames\]"):
        convert_mel(np.zeros((81, 4)), "power")
