"""Each metric against theory, or the package that it comes from called by hand."""

import math

import numpy as np
import pytest
import soxr
from known import RATE, noise, speech, voiced

from fastglow.config import WaveGlowConfig
from fastglow.evaluate import metrics

pytest.importorskip("librosa")
scipy_signal = pytest.importorskip("scipy.signal")
CONFIG = WaveGlowConfig()
# The ITU's mapping of the best raw score, 4.5 (P.862.2, equation 1).
BEST_PESQ = 0.999 + 4.0 / (1 + math.exp(-1.3669 * 4.5 + 3.8224))


def test_a_recording_is_perfect_beside_itself():
    pytest.importorskip("pystoi")
    pytest.importorskip("pesq")
    wave = speech()
    assert metrics.pesq_wb(wave, wave, RATE) == pytest.approx(BEST_PESQ, abs=1e-3)
    assert metrics.stoi(wave, wave, RATE) == pytest.approx(1, abs=1e-6)
    assert metrics.mcd(wave, wave, RATE) == 0
    assert metrics.log_mel_l1(wave, wave, CONFIG) == 0
    assert metrics.multi_resolution_stft(wave, wave) == 0
    track = metrics.pitch(wave, RATE)
    assert metrics.f0_errors(track, track) == (0, 0)


@pytest.mark.parametrize("metric", ["pesq_wb", "stoi"])
def test_more_noise_is_worse(metric):
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    wave = speech()
    measure = getattr(metrics, metric)
    clean, some, much = (measure(wave, wave + noise(x, 1.5), RATE) for x in (0, 0.01, 0.1))
    assert clean > some + 0.01 > much + 0.02
    assert much > 0


def test_a_gain_moves_what_hears_loudness_by_its_logarithm():
    wave, gain = noise(0.1), 0.5
    assert metrics.mcd(wave, gain * wave, RATE) == pytest.approx(0, abs=1e-5)
    assert metrics.log_mel_l1(wave, gain * wave, CONFIG) == pytest.approx(-math.log(gain), rel=1e-5)
    expected = (1 - gain) - math.log(gain)
    assert metrics.multi_resolution_stft(wave, gain * wave) == pytest.approx(expected, rel=1e-3)


def test_mcd_of_a_filter_is_its_smoothed_response_on_the_mel_scale():
    taps = [1.0, 0.6]
    wave = noise(0.1, seconds=4)
    found = metrics.mcd(wave, scipy_signal.lfilter(taps, 1, wave), RATE)
    librosa = pytest.importorskip("librosa")
    centres = librosa.mel_frequencies(82, fmin=0, fmax=8000)[1:-1]
    response = np.log(np.abs(np.polyval(taps[::-1], np.exp(-2j * np.pi * centres / RATE))))
    # RMS over the bands of the response through its first 13 cosines, without the constant one.
    angle = np.pi * (np.arange(80) + 0.5) / 80
    basis = np.sqrt(2 / 80) * np.cos(np.arange(1, 14)[:, None] * angle)
    expected = 20 / np.log(10) * np.sqrt(((basis @ response) ** 2).sum() / 80)
    assert found == pytest.approx(expected, rel=0.03)


def test_mcd_does_not_depend_on_the_rate():
    wave = speech()
    other = scipy_signal.lfilter([1.0, 0.6], 1, wave).astype(np.float32)
    up = [soxr.resample(x, RATE, 44100) for x in (wave, other)]
    assert metrics.mcd(*up, 44100) == pytest.approx(metrics.mcd(wave, other, RATE), rel=0.02)


def test_long_audio_is_heard_by_pesq_in_equal_parts():
    pesq = pytest.importorskip("pesq").pesq
    wave = np.tile(speech(2.0), 8)[: 16 * RATE]
    other = (wave + noise(0.01, 16)).astype(np.float32)
    parts = [metrics.wideband(x, RATE) for x in (wave, other)]
    assert [part.size for part in parts[0]] == [8 * 16000] * 2
    expected = np.mean([pesq(16000, *pair, "wb") for pair in zip(*parts, strict=True)])
    assert metrics.pesq_wb(wave, other, RATE) == pytest.approx(expected)
    whole = soxr.resample(wave, RATE, 16000, quality="VHQ")
    np.testing.assert_array_equal(np.concatenate(parts[0]), whole)


def test_fifty_utterances_in_a_part_do_not_crash_pesq():
    pytest.importorskip("pesq")
    burst = np.concatenate([noise(0.3, 0.22), np.zeros(int(0.22 * RATE))])
    wave = np.tile(burst, 68)
    assert 1 < metrics.pesq_wb(wave, wave + noise(1e-3, wave.size / RATE), RATE) < BEST_PESQ


def test_the_pitch_of_a_harmonic_tone_is_its_fundamental():
    low = metrics.pitch(voiced(200), RATE)
    high = metrics.pitch(voiced(200 * 2 ** (1 / 12)), RATE)
    assert np.nanmedian(low) == pytest.approx(200, rel=0.005)
    cents, voicing = metrics.f0_errors(low, high)
    assert cents == pytest.approx(100, abs=10)  # pYIN's grid is 10 cents
    assert voicing < 5


def test_silence_in_one_half_is_half_voicing_errors():
    tone = voiced(200, seconds=2)
    half = np.where(np.arange(tone.size) < tone.size // 2, tone, 0)
    cents, voicing = metrics.f0_errors(metrics.pitch(tone, RATE), metrics.pitch(half, RATE))
    assert cents < 10
    assert voicing == pytest.approx(50, abs=4)


def test_pitch_errors_are_counted_by_hand():
    nan = np.nan
    true = np.array([100.0, 100.0, 200.0, nan, nan, 300.0])
    found = np.array([200.0, 100.0, nan, nan, 100.0])
    cents, voicing = metrics.f0_errors(true, found)
    assert cents == pytest.approx(1200 / math.sqrt(2))
    assert voicing == pytest.approx(40)
    assert metrics.f0_errors(np.array([nan, 100.0]), np.array([100.0, nan])) == (None, 100)


@pytest.mark.parametrize("samples", [1, 2, 100, 3000])
def test_what_is_too_short_has_no_opinion_and_breaks_nothing(samples):
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    wave = noise(0.1)[:samples]
    other = wave + noise(0.01, seed=1)[:samples]
    assert metrics.pesq_wb(wave, other, RATE) is None
    assert metrics.stoi(wave, other, RATE) is None
    assert metrics.mcd(wave, other, RATE) > 0
    assert metrics.multi_resolution_stft(wave, other) > 0
    tracks = [metrics.pitch(x, RATE) for x in (wave, other)]
    assert metrics.f0_errors(*tracks) == (None, None)


def test_silence_has_no_opinion_and_breaks_nothing():
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    silence, wave = np.zeros(RATE), speech(1.0)
    for true, found in ((silence, wave), (wave, silence), (silence, silence)):
        assert metrics.pesq_wb(true, found, RATE) is None
        assert metrics.stoi(true, found, RATE) is None
        assert math.isfinite(metrics.mcd(true, found, RATE))
    assert metrics.multi_resolution_stft(silence, wave) is None
    assert np.isnan(metrics.pitch(silence, RATE)).all()
    assert metrics.pitch(silence, RATE).size == metrics.pitch(wave, RATE).size
