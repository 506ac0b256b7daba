"""Distances between a recording and the speech generated from its mel.

Both signals of a metric are [samples] floating point, nominally within [-1, 1], of one length and
aligned in time, as copy-synthesis leaves them; nothing is shifted or warped. None means that the
metric has no value for this pair (silence, nothing voiced, too short), never that it is zero.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.audio.mel import mel_spectrogram, resample
from fastglow.config import MelConfig, WaveGlowConfig
from fastglow.evaluate.libraries import optional, padding_quietly

Wave = NDArray[np.floating[Any]]
Float64 = NDArray[np.float64]

WIDEBAND = 16000  # Hz, what PESQ-wb and the MOS predictor are defined for
PART = 15.0  # seconds, at most, that PESQ and the MOS predictor are given at a time
FRAME = 0.0464  # seconds: 1024 samples at 22,050 Hz; the pitch tracker's frame is twice as long
CEPSTRA = 13  # coefficients of MCD, without the 0th
PITCHES = (60.0, 600.0)  # Hz, of speech
RESOLUTIONS = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))  # FFT, hop, window
POWER_FLOOR = 1e-7


def pesq_wb(original: Wave, generated: Wave, rate: int) -> float | None:
    """Wideband PESQ: a listener's opinion as the ITU models it; higher is better.

    Args:
        original: [samples].
        generated: [samples].
        rate: Hz; both are resampled to 16 kHz.

    Returns:
        MOS-LQO, 1.04 to 4.64; None under 1/4 s or without an utterance. What is longer than 15 s is
        scored in equal parts and averaged: the ITU's program is for 8 to 20 s, and writes out of
        bounds past 50 utterances.

    Source: ITU-T P.862.2, as the package ``pesq`` runs it.
    """
    module = optional("pesq")
    found = []
    for true, heard in zip(wideband(original, rate), wideband(generated, rate), strict=True):
        if not _silent(true) and not _silent(heard):
            try:
                found.append(module.pesq(WIDEBAND, true, heard, "wb"))
            except module.PesqError:
                continue
    return float(np.mean(found)) if found else None


def wideband(wave: Wave, rate: int) -> list[NDArray[np.float32]]:
    """Audio [samples] at 16 kHz, in equal parts [samples] of 15 s at most."""
    narrow = resample(wave, rate, WIDEBAND).astype(np.float32)
    return np.array_split(narrow, math.ceil(narrow.size / (PART * WIDEBAND)))


def stoi(original: Wave, generated: Wave, rate: int) -> float | None:
    """Short-time objective intelligibility; higher is better.

    Args:
        original: [samples]; what is 40 dB under its loudest frame is left out as silent.
        generated: [samples].
        rate: Hz.

    Returns:
        A correlation, at most 1; None with less than 0.4 s of speech.

    Source: Taal et al., IEEE TASLP 19(7), 2011, as the package ``pystoi`` computes it.
    """
    module = optional("pystoi")
    if _silent(original) or _silent(generated):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # its way to say "too short"
        try:
            return float(module.stoi(original, generated, rate, extended=False))
        except (RuntimeWarning, ValueError, IndexError):
            return None


def mcd(original: Wave, generated: Wave, rate: int) -> float:
    """Mel-cepstral distortion over coefficients 1 to 13, all frames; lower is better.

    c is the cosine transform of the natural log of 80 mel magnitudes from 0 to 8 kHz, whatever the
    rate (46 ms frames, 12 ms apart, floored at 1e-5), scaled so that
    ln mel = c_0 / 2 + sum of c_m cos(m w); a frame has 10 / ln 10 * sqrt(2 * sum of squared
    differences) dB, the RMS over the bands of the difference of the smoothed spectra.

    Args:
        original: [samples].
        generated: [samples].
        rate: Hz.

    Returns:
        dB, 0 or more. Figures of another definition (WORLD, SPTK, c_0, DTW) do not compare.

    Source: R. Kubichek, "Mel-cepstral distance measure", PACRIM 1993.
    """
    n_fft = 2 * round(rate * FRAME / 2)
    config = WaveGlowConfig(
        sampling_rate=rate,
        hop_length=n_fft // 4,
        upsample_kernel=n_fft,
        mel=MelConfig(n_fft=n_fft, win_length=n_fft, fmax=8000.0),
    )
    transform = optional("scipy.fft").dct
    mels = [mel_spectrogram(wave, rate, config=config) for wave in (original, generated)]
    difference = mels[0].astype(np.float64) - mels[1]
    cepstra = transform(difference, axis=0)[1 : CEPSTRA + 1] / len(difference)  # [13, frames]
    return float(10 / np.log(10) * np.sqrt(2 * (cepstra**2).sum(axis=0)).mean())


def log_mel_l1(original: Wave, generated: Wave, config: WaveGlowConfig) -> float:
    """Mean absolute difference of the mels that the voice itself reads; lower is better.

    Args:
        original: [samples].
        generated: [samples].
        config: The voice's; both signals are at its rate.

    Returns:
        Nepers (natural log of magnitude), 0 or more.
    """
    rate = config.sampling_rate
    mels = [mel_spectrogram(wave, rate, config=config) for wave in (original, generated)]
    return float(np.abs(mels[0].astype(np.float64) - mels[1]).mean())


def multi_resolution_stft(original: Wave, generated: Wave) -> float | None:
    """Spectral convergence + log magnitude at three resolutions, averaged; lower is better.

    Convergence is the norm of the difference of the magnitudes over that of the original; the
    other term is the mean absolute difference of their natural logs. Hann windows of 240, 600
    and 1200 samples, 50, 120 and 240 apart, in FFTs of 512, 1024 and 2048.

    Args:
        original: [samples].
        generated: [samples].

    Returns:
        0 or more, without unit; None if the original is silent.

    Source: Yamamoto et al., "Parallel WaveGAN", ICASSP 2020, equations 4 to 6.
    """
    if _silent(original):
        return None
    terms = []
    for n_fft, hop, window in RESOLUTIONS:
        true, found = (_magnitude(wave, n_fft, hop, window) for wave in (original, generated))
        convergence = np.linalg.norm(true - found) / np.linalg.norm(true)
        terms.append(convergence + np.abs(np.log(true) - np.log(found)).mean())
    return float(np.mean(terms))


def _magnitude(wave: Wave, n_fft: int, hop: int, window: int) -> Float64:
    """STFT magnitudes [bins, frames], floored."""
    with padding_quietly():
        spectrum = optional("librosa").stft(
            wave.astype(np.float64), n_fft=n_fft, hop_length=hop, win_length=window
        )
    power = spectrum.real**2 + spectrum.imag**2
    return np.asarray(np.sqrt(np.maximum(power, POWER_FLOOR)))


def pitch(wave: Wave, rate: int) -> Float64:
    """The fundamental frequency by probabilistic YIN.

    Args:
        wave: [samples].
        rate: Hz.

    Returns:
        Hz [frames], 60 to 600, 12 ms apart; NaN where nothing is voiced, and all of it for audio
        shorter than one frame of 93 ms.

    Source: Mauch and Dixon, "pYIN", ICASSP 2014, as ``librosa.pyin`` computes it.
    """
    frame = 2 * round(rate * FRAME)
    if _silent(wave) or wave.size < frame:
        return np.full(wave.size // (frame // 8) + 1, np.nan)
    low, high = PITCHES
    with padding_quietly():
        found, _, _ = optional("librosa").pyin(
            wave, fmin=low, fmax=high, sr=rate, frame_length=frame, hop_length=frame // 8
        )
    return np.asarray(found, dtype=np.float64)


def f0_errors(original: Float64, generated: Float64) -> tuple[float | None, float | None]:
    """How far two pitch tracks are apart; lower is better.

    Args:
        original: Hz [frames], NaN where unvoiced; see :func:`pitch`.
        generated: Hz [frames]; the longer track is cut.

    Returns:
        The RMSE in cents over the frames voiced in both (None without any), and the percentage of
        frames that are voiced in one only (None if neither is voiced anywhere).
    """
    frames = min(original.size, generated.size)
    true, found = original[:frames], generated[:frames]
    both = np.isfinite(true) & np.isfinite(found)
    one = np.isfinite(true) != np.isfinite(found)
    voicing = 100 * float(one.mean()) if both.any() or one.any() else None
    if not both.any():
        return None, voicing
    cents = 1200 * np.log2(found[both] / true[both])
    return float(np.sqrt((cents**2).mean())), voicing


def _silent(wave: Wave) -> bool:
    return not np.any(wave)
