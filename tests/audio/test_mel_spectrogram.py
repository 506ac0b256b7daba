"""Tacotron 2's mel, against librosa."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import clips
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastglow
from fastglow.audio import mel as mel_module
from fastglow.audio import mel_spectrogram
from fastglow.audio.bands import Bands, filter_bank
from fastglow.audio.frames import block_of, hann
from fastglow.config import MelConfig, WaveGlowConfig
from fastglow.errors import InputError

CONFIGS = {
    "published": WaveGlowConfig(),
    "16k": WaveGlowConfig(
        sampling_rate=16000, hop_length=200, mel=MelConfig(1024, 800, 40.0, 7600.0)
    ),
    "48k": WaveGlowConfig(
        sampling_rate=48000, hop_length=512, n_mel_channels=128, mel=MelConfig(2048, 2048, 0, None)
    ),
    "odd hop": WaveGlowConfig(hop_length=275, mel=MelConfig(2048, 1101, 80.0, 5512.5)),
    "few bands": WaveGlowConfig(n_mel_channels=8, mel=MelConfig(512, 512, 0.0, 11025.0)),
}


def expected(audio: np.ndarray, config: WaveGlowConfig) -> np.ndarray:
    return np.log(np.maximum(clips.librosa_mel(audio, config), 1e-5))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("path", clips.FILES, ids=lambda p: p.stem)
def test_equals_librosa(path, config):
    audio = clips.wave(path)
    mel = mel_spectrogram(audio, config.sampling_rate, config=config)
    assert mel.dtype == np.float32
    assert mel.shape == (config.n_mel_channels, len(audio) // config.hop_length + 1)
    assert np.abs(mel - expected(audio, config)).max() <= 1e-6  # promised: 1e-4


@settings(max_examples=60, deadline=None)
@given(samples=st.integers(1, 4000), seed=st.integers(0, 99))
def test_any_length_reflects_as_numpy_does(samples, seed):
    audio = np.random.default_rng(seed).uniform(-1, 1, samples)
    padded = np.pad(audio, 512, mode="reflect") if samples > 1 else np.full(1025, audio[0])
    config = WaveGlowConfig()
    frames = np.lib.stride_tricks.sliding_window_view(padded, 1024)[::256]
    spectra = np.abs(np.fft.rfft(frames * hann(1024, 1024)))
    filters = filter_bank(config.mel, 80, 22050)
    mel = mel_spectrogram(audio, 22050)
    assert mel.shape == (80, samples // 256 + 1)
    wanted = np.log(np.maximum(filters @ spectra.T, 1e-5))
    np.testing.assert_allclose(mel, wanted, atol=2e-6)


@settings(max_examples=100, deadline=None)
@given(
    n_fft=st.integers(1, 600).map(lambda half: 2 * half),
    bands=st.integers(1, 160),
    edges=st.tuples(st.floats(0, 4000), st.floats(0.1, 8000)),
)
def test_bands_are_the_filters_sums(n_fft, bands, edges):
    """Of many narrow bands some hold no bin, and of a few bins all bands may hold none."""
    mel = MelConfig(n_fft, n_fft, edges[0], sum(edges))
    spectra = np.random.default_rng(n_fft).normal(size=(2, 3, n_fft // 2 + 1))
    wanted = np.abs(spectra[0] + 1j * spectra[1]) @ filter_bank(mel, bands, 24000).T
    found = Bands(mel, bands, 24000)(spectra[0] + 1j * spectra[1])
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_bands_have_the_same_bits_whatever_the_block(config):
    sums = Bands(config.mel, config.n_mel_channels, config.sampling_rate)
    parts = np.random.default_rng(0).normal(size=(2, 130, config.mel.n_fft // 2 + 1))
    spectra = parts[0] + 1j * parts[1]
    whole = sums(spectra)
    for block in (1, 7, 64):
        blocks = [sums(spectra[at : at + block]) for at in range(0, len(spectra), block)]
        np.testing.assert_array_equal(np.concatenate(blocks), whole)
    assert sums(spectra[:0]).shape == (0, config.n_mel_channels)


def test_blocks_leave_no_seam(monkeypatch):
    audio = clips.wave(clips.FILES[0])
    whole = mel_spectrogram(audio, 22050)
    monkeypatch.setattr(mel_module, "block_of", lambda n_fft: 7)
    np.testing.assert_array_equal(mel_spectrogram(audio, 22050), whole)


def test_blocks_are_smaller_where_frames_are_longer():
    assert [block_of(n_fft) for n_fft in (2, 1024, 4096, 1 << 20)] == [512, 512, 128, 1]


def test_memory_does_not_grow_with_the_audio():
    mel_spectrogram(np.zeros(2000, np.float32), 22050)  # the filters are made once
    audio = np.tile(clips.wave(clips.FILES[0]), 60)  # 5 minutes; all its frames would be 200 MB
    tracemalloc.start()
    mel = mel_spectrogram(audio, 22050)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - mel.nbytes < 20e6


def test_a_batch_is_its_rows_and_torch_is_welcome():
    audio = clips.wave(clips.FILES[0])[:44000].reshape(2, 22000)
    mels = mel_spectrogram(torch.from_numpy(audio), 22050)
    assert mels.shape == (2, 80, 86)
    for row, mel in zip(audio, mels, strict=True):
        assert np.array_equal(mel, mel_spectrogram(row, 22050))


def test_pcm_integers_are_scaled():
    audio = np.round(clips.wave(clips.FILES[0]) * 32768)
    wanted = mel_spectrogram(audio / 32768, 22050)
    assert np.abs(mel_spectrogram(audio.astype(np.int16), 22050) - wanted).max() < 1e-6
    wide = (audio * 65536).astype(np.int32)
    assert np.abs(mel_spectrogram(wide, 22050) - wanted).max() < 1e-6


def test_another_rate_is_resampled():
    time = np.arange(48000) / 48000
    tone = 0.5 * np.sin(2 * np.pi * 1000 * time)
    mel = mel_spectrogram(tone, 48000)
    assert mel.shape == (80, 22050 // 256 + 1)
    wanted = expected(0.5 * np.sin(2 * np.pi * 1000 * np.arange(22050) / 22050), WaveGlowConfig())
    loud = wanted[:, 10:-10] > -4
    assert np.abs(mel[:, 10:-10] - wanted[:, 10:-10])[loud].max() < 1e-3


def test_fmax_above_nyquist_is_nyquist():
    audio = clips.wave(clips.FILES[0])
    mels = [
        mel_spectrogram(audio, 16000, config=WaveGlowConfig(sampling_rate=16000, mel=one))
        for one in (MelConfig(fmax=20000.0), MelConfig(fmax=8000.0), MelConfig(fmax=None))
    ]
    assert np.array_equal(mels[0], mels[1])
    assert np.array_equal(mels[0], mels[2])


def test_silence_is_the_floor():
    assert np.allclose(mel_spectrogram(np.zeros(5000), 22050), np.log(1e-5))


BAD = {
    "empty": (np.zeros(0), "expected [samples]"),
    "empty batch": (np.zeros((0, 100)), "expected [samples]"),
    "scalar": (np.float32(1), "expected [samples]"),
    "3-d": (np.zeros((1, 1, 100)), "expected [samples]"),
    "stereo": (np.zeros((1000, 2)), "average the channels"),
    "nan": (np.array([0.0, np.nan]), "NaN or infinite"),
    "inf": (np.array([0.0, -np.inf]), "NaN or infinite"),
    "int64": (np.zeros(9, np.int64), "dtype int64"),
    "complex": (np.zeros(9, complex), "dtype complex128"),
    "undivided": (np.full(9, 12345.0), "divide 16-bit samples by 32768"),
}


@pytest.mark.parametrize(("audio", "says"), BAD.values(), ids=BAD)
def test_bad_audio_is_one_clear_line(audio, says):
    with pytest.raises(InputError) as error:
        mel_spectrogram(audio, 22050)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rate", [0, -1, 10**7])
def test_bad_rate(rate):
    with pytest.raises(InputError, match="expected 1000 to 768000"):
        mel_spectrogram(np.zeros(1000), rate)


@pytest.mark.parametrize(
    "mel",
    [MelConfig(1023, 512), MelConfig(512, 1024), MelConfig(fmin=9000.0), MelConfig(fmax=-1.0)],
)
def test_bad_hyperparameters(mel):
    with pytest.raises(InputError, match="expected"):
        mel_spectrogram(np.zeros(1000), 22050, config=WaveGlowConfig(mel=mel))


def test_no_heavy_imports():
    heavy = "{'torch', 'scipy', 'librosa', 'matplotlib', 'soundfile', 'soxr'}"
    code = f"import sys, fastglow.audio; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert fastglow.mel_spectrogram is mel_spectrogram
