"""Mel matching, against torch's STFT and librosa's filters."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import clips
import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastglow.audio import mel_spectrogram
from fastglow.audio.match import Matching, MelMatcher
from fastglow.config import MelConfig, WaveGlowConfig
from fastglow.errors import InputError

CONFIG = WaveGlowConfig()
OTHER = WaveGlowConfig(
    n_mel_channels=40, hop_length=128, mel=MelConfig(n_fft=512, win_length=512, fmin=50, fmax=None)
)
SHORT = replace(CONFIG, mel=MelConfig(n_fft=1024, win_length=800))
RATE = CONFIG.sampling_rate


@pytest.mark.parametrize(
    "config",
    [CONFIG, OTHER, SHORT, replace(CONFIG, n_mel_channels=160)],
    ids=["published", "other", "short windows", "bands without a bin"],
)
def test_bands_are_those_of_the_filters(config: WaveGlowConfig) -> None:
    bins = np.random.default_rng(0).normal(size=(5, 2, config.mel.n_fft // 2 + 1))
    spectra = bins[:, 0] + 1j * bins[:, 1]
    mel, rate = config.mel, config.sampling_rate
    filters = librosa.filters.mel(
        sr=rate, n_fft=mel.n_fft, n_mels=config.n_mel_channels, fmin=mel.fmin, fmax=mel.fmax,
        dtype=np.float64,
    )  # fmt: skip
    expected = -np.log(np.maximum(np.abs(spectra) @ filters.T, 1e-5))
    np.testing.assert_allclose(MelMatcher(config).lack(spectra), expected, atol=1e-9)


def speech(config: WaveGlowConfig = CONFIG) -> tuple[np.ndarray, np.ndarray]:
    """Whole frames of speech in some noise, and the mel of the speech alone."""
    wave = clips.wave(clips.FILES[0])[: 100 * config.hop_length]
    mel = mel_spectrogram(wave, RATE, config=config)[:, :100]
    noise = 0.01 * np.random.default_rng(0).standard_normal(wave.size)
    return (wave + noise).astype(np.float32), mel


def oracle(
    audio: np.ndarray, mel: np.ndarray, config: WaveGlowConfig, strength: float
) -> np.ndarray:
    """The same in torch and librosa, float64."""
    n_fft, hop = config.mel.n_fft, config.hop_length
    win_length = config.mel.win_length
    window = torch.hann_window(win_length, dtype=torch.float64)
    wave = torch.from_numpy(audio.astype(np.float64))
    spectra = torch.stft(wave, n_fft, hop, win_length, window, return_complex=True).numpy()
    fmax = config.mel.fmax or RATE / 2
    layout = {"n_mels": config.n_mel_channels, "fmin": config.mel.fmin, "fmax": fmax}
    bank = librosa.filters.mel(sr=RATE, n_fft=n_fft, dtype=np.float64, **layout)
    own = np.log(np.maximum(bank @ np.abs(spectra), 1e-5))
    gain = np.zeros_like(own)
    gain[:, : mel.shape[1]] = np.clip(strength * (mel - own[:, : mel.shape[1]]), -2, 2)
    edges = librosa.mel_frequencies(config.n_mel_channels + 2, fmin=config.mel.fmin, fmax=fmax)
    bins = np.arange(n_fft // 2 + 1) * RATE / n_fft
    spread = np.stack([np.interp(bins, edges[1:-1], column) for column in gain.T], axis=1)
    scaled = torch.from_numpy(spectra * np.exp(spread))
    return torch.istft(scaled, n_fft, hop, win_length, window, length=len(audio)).numpy()


@pytest.mark.parametrize("config", [CONFIG, OTHER, SHORT], ids=["published", "other", "short"])
@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_equals_torch_and_librosa(config, strength):
    audio, mel = speech(config)
    found = MelMatcher(config)(audio, mel, strength)
    assert found.dtype == np.float32
    assert np.abs(found - oracle(audio, mel, config, strength)).max() <= 1e-6


@pytest.mark.parametrize("block", [1, 2, 7, 100])
def test_the_block_changes_no_bit(block):
    audio, mel = speech()
    wanted = MelMatcher(CONFIG)(audio, mel)
    assert np.array_equal(MelMatcher(CONFIG, block=block)(audio, mel), wanted)


def test_threads_and_turns_in_one_thread_keep_apart():
    """What is worked on is kept from call to call, by each thread for itself."""
    rng = np.random.default_rng(0)
    waves = [
        (0.1 * rng.standard_normal(256 * hops)).astype(np.float32) for hops in range(600, 901, 100)
    ]

    def matched(wave: np.ndarray) -> np.ndarray:
        return MelMatcher(CONFIG)(wave, mel_spectrogram(wave, RATE) + np.float32(0.3))

    wanted = [matched(wave) for wave in waves]
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(matched, waves * 3), wanted * 3, strict=True):
            assert np.array_equal(found, expected)

    turns: list[tuple[Matching, list[np.ndarray]]] = []
    for wave in waves[:2]:
        turns.append((MelMatcher(CONFIG).begin(1.0), []))
        turns[-1][0].hear(mel_spectrogram(wave, RATE) + np.float32(0.3))
    for at in range(0, 256 * 700, 7000):
        for wave, (matching, out) in zip(waves, turns, strict=False):
            out.append(matching.push(wave[at : at + 7000]))
    for (matching, out), expected in zip(turns, wanted, strict=False):
        assert np.array_equal(np.concatenate([*out, matching.finish()]), expected)


@settings(max_examples=40, deadline=None)
@given(
    samples=st.integers(1, 6000),
    sizes=st.lists(st.integers(0, 2000), min_size=1).filter(any),
    block=st.integers(1, 8),
)
def test_pieces_have_the_whole_s_bits(samples, sizes, block):
    audio, mel = speech()
    audio, mel = audio[:samples], mel[:, : -(-samples // 256)]
    matching, out, at, turn = MelMatcher(CONFIG, block=block).begin(1.0), [], 0, 0
    matching.hear(mel[:, :4])
    matching.hear(mel[:, 4:])
    while at < samples:
        size = sizes[turn % len(sizes)]
        out.append(matching.push(audio[at : at + size]))
        at, turn = at + size, turn + 1
        assert sum(piece.size for piece in out) >= min(at, samples) - 1024
    out.append(matching.finish())
    assert np.array_equal(np.concatenate(out), MelMatcher(CONFIG)(audio, mel))


def test_the_mel_comes_nearer_and_more_so_the_stronger():
    audio, mel = speech()
    matcher = MelMatcher(CONFIG)
    distances = [
        np.abs(mel_spectrogram(matcher(audio, mel, strength), RATE)[:, :100] - mel).mean()
        for strength in (0.0, 0.5, 1.0)
    ]
    assert distances[0] > 1.4 * distances[1] > 1.4**2 * distances[2]


def test_audio_that_has_its_mel_stays_what_it_is():
    wave = clips.wave(clips.FILES[0])[:25600].astype(np.float32)
    same = MelMatcher(CONFIG)(wave, mel_spectrogram(wave, RATE))
    assert np.abs(same - wave).max() < 1e-5


def test_strength_zero_no_audio_and_silence_change_nothing():
    audio, mel = speech()
    matcher = MelMatcher(CONFIG)
    assert matcher(audio, mel, 0.0) is audio
    assert matcher(audio[:0], mel).shape == (0,)
    assert not matcher(np.zeros(25600, np.float32), mel).any()


def test_past_the_mels_end_nothing_changes():
    audio, mel = speech()
    changed = MelMatcher(CONFIG)(audio, mel[:, :40])
    assert np.abs(changed - audio)[: 38 * 256].max() > 1e-3
    assert np.abs(changed - audio)[42 * 256 :].max() < 1e-6


@pytest.mark.parametrize("arguments", [{"strength": 2}, {"strength": float("nan")}])
def test_a_bad_strength_is_refused(arguments):
    with pytest.raises(InputError, match="match_mel"):
        MelMatcher(CONFIG)(*speech(), **arguments)


def test_bad_shapes_and_values_are_refused():
    audio, mel = speech()
    for wave, bands in ((audio[None], mel), (audio, mel[1:]), (audio, np.nan * mel)):
        with pytest.raises(InputError, match="expected"):
            MelMatcher(CONFIG)(wave, bands)


def test_a_length_that_is_no_multiple_of_a_wide_hop_ends_quietly():
    config = replace(CONFIG, hop_length=340)
    audio, mel = speech(config)
    matched = MelMatcher(config)(audio[:-4], mel)
    assert np.abs(matched[-340:]).max() <= np.abs(matched).max() / 2


def test_windows_that_hardly_overlap_are_refused():
    with pytest.raises(InputError, match="win_length=400 and a hop of 256"):
        MelMatcher(replace(CONFIG, mel=MelConfig(n_fft=1024, win_length=400)))
