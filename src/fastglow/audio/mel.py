"""The mel spectrogram that WaveGlow reads: Tacotron 2's, in numpy alone.

Frame t is the magnitude of the FFT of ``n_fft`` samples around sample ``t * hop`` (reflected at
the ends) under a periodic Hann window, through area-normalised triangular filters on Slaney's
mel scale, floored at 1e-5, natural logarithm.

Source: tacotron2's layers.py and stft.py; M. Slaney, Auditory Toolbox (1998).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.config import MelConfig, WaveGlowConfig
from fastglow.errors import InputError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Wave = NDArray[np.floating[Any]]

FLOOR = 1e-5  # magnitude; its logarithm, -11.513, is the least value of a mel
MAX_PEAK = 100.0  # float audio above this is surely 16-bit samples that nobody divided by 32768
FULL_SCALE = {"int16": 2.0**15, "int32": 2.0**31}
RATES = (1000, 768000)  # Hz that audio may have
BLOCK = 512  # frames at a time: 4 MB each for the windows and for their spectra


def mel_spectrogram(wave: Any, rate: int, *, config: WaveGlowConfig | None = None) -> Float32:
    """The natural-log mel spectrogram of audio, as Tacotron 2 and WaveGlow define it.

    Audio of another rate is resampled first. Audio of ``n_fft / 2`` samples or fewer is
    reflected as often as the padding needs, as ``numpy.pad`` does. Memory beyond the result is
    bounded (the resampled audio apart).

    Args:
        wave: [samples] or [B, samples] within [-1, 1], numpy or torch; int16 and int32 are
            divided by their full scale.
        rate: Hz.
        config: The model that will read the mel; the published WaveGlow by default.

    Returns:
        float32 [n_mel, frames] or [B, n_mel, frames] with frames = samples // hop + 1, ln.

    Raises:
        InputError: The audio is empty, not finite, not audio-shaped or not at any known scale.
    """
    config = config or WaveGlowConfig()
    checked = as_wave(wave)
    rows = checked if checked.ndim == 2 else checked[None]
    mels = [_mel(resample(row, rate, config.sampling_rate), config) for row in rows]
    return np.stack(mels) if checked.ndim == 2 else mels[0]


def as_wave(wave: Any) -> Wave:
    """Audio as float32 or float64 [samples] or [B, samples], checked.

    Raises:
        InputError: As for :func:`mel_spectrogram`.
    """
    if hasattr(wave, "detach"):
        wave = wave.detach().to("cpu").numpy()
    return _checked(np.asarray(wave))


def _checked(wave: NDArray[Any]) -> Wave:
    if wave.ndim not in (1, 2) or 0 in wave.shape:
        raise InputError(
            f"the audio has shape {list(wave.shape)}; expected [samples] or [batch, samples]"
        )
    if wave.ndim == 2 and wave.shape[1] <= 8 < wave.shape[0]:
        raise InputError(
            f"the audio has shape {list(wave.shape)}, which looks like [samples, channels]; "
            "average the channels: wave.mean(axis=1)"
        )
    if wave.dtype.name in FULL_SCALE:
        return wave.astype(np.float32) / np.float32(FULL_SCALE[wave.dtype.name])
    if wave.dtype.kind != "f":
        raise InputError(f"the audio has dtype {wave.dtype}; expected float, int16 or int32")
    if wave.dtype.itemsize != 8:
        wave = wave.astype(np.float32, copy=False)
    low, high = float(wave.min()), float(wave.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("the audio holds NaN or infinite values")
    if max(-low, high) > MAX_PEAK:
        raise InputError(
            f"the audio peaks at {max(-low, high):.5g}; expected samples within [-1, 1] "
            "(divide 16-bit samples by 32768)"
        )
    return wave


def resample(wave: Wave, rate: int, target: int) -> Wave:
    """Audio [samples] at another rate (soxr, very high quality).

    Raises:
        InputError: A rate is out of range, or nothing is left of the audio.
    """
    for hertz in (rate, target):
        if not RATES[0] <= hertz <= RATES[1]:
            raise InputError(f"a rate of {hertz} Hz; expected {RATES[0]} to {RATES[1]}")
    if rate == target:
        return wave
    import soxr

    out: Wave = soxr.resample(wave, rate, target, quality="VHQ")
    if not out.size:
        raise InputError(f"{wave.size} samples at {rate} Hz leave none at {target} Hz")
    return out


def reflected(wave: Wave, start: int, stop: int) -> Float64:
    """Samples ``start`` to ``stop - 1`` of audio [samples] that is mirrored at both ends."""
    if start >= 0 and stop <= wave.size:
        return wave[start:stop].astype(np.float64)
    last = wave.size - 1
    index = np.arange(start, stop) % max(2 * last, 1)
    return wave[np.minimum(index, 2 * last - index)].astype(np.float64)


def frames_of(wave: Wave, first: int, count: int, n_fft: int, hop: int) -> Any:
    """Frames ``first`` to ``first + count - 1`` of audio as float64 [count, n_fft], a view."""
    start = first * hop - n_fft // 2
    piece = reflected(wave, start, start + (count - 1) * hop + n_fft)
    return np.lib.stride_tricks.sliding_window_view(piece, n_fft)[::hop]


def hann(win_length: int, n_fft: int) -> Float64:
    """A periodic Hann window [n_fft], zero outside its middle ``win_length`` samples."""
    window = np.zeros(n_fft)
    start = (n_fft - win_length) // 2
    phase = np.arange(win_length) * (2 * np.pi / win_length)
    window[start : start + win_length] = 0.5 - 0.5 * np.cos(phase)
    return window


@lru_cache(maxsize=8)
def filter_bank(mel: MelConfig, bands: int, rate: int) -> Float64:
    """Triangular filters [bands, n_fft // 2 + 1] of unit area in Hz on Slaney's mel scale.

    Args:
        mel: Its ``fmax`` is the Nyquist frequency if left out or above it.
        bands: How many filters.
        rate: Hz.

    Raises:
        InputError: The mel's hyperparameters fit neither each other nor the rate.
    """
    fmax = _fmax(mel, rate)
    if mel.n_fft < 2 or mel.n_fft % 2 or not 1 <= mel.win_length <= mel.n_fft:
        raise InputError(
            f"n_fft={mel.n_fft} with win_length={mel.win_length}; "
            "expected an even n_fft and a window of 1 to n_fft samples"
        )
    if not 0 <= mel.fmin < fmax:
        raise InputError(f"fmin={mel.fmin} and fmax={fmax} Hz; expected 0 <= fmin < fmax")
    edges = _edges(mel, bands, rate)
    bins = np.arange(mel.n_fft // 2 + 1) * (rate / mel.n_fft)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(np.minimum(rising, falling), 0)
    bank: Float64 = triangles * (2 / (edges[2:] - edges[:-2]))[:, None]
    bank.flags.writeable = False
    return bank


def band_centres(mel: MelConfig, bands: int, rate: int) -> Float64:
    """Where the filters of :func:`filter_bank` peak, [bands] Hz."""
    return _edges(mel, bands, rate)[1:-1]


def _edges(mel: MelConfig, bands: int, rate: int) -> Float64:
    """Where the filters begin, peak and end, [bands + 2] Hz."""
    low, high = _hz_to_mel(mel.fmin), _hz_to_mel(_fmax(mel, rate))
    return _mel_to_hz(np.linspace(low, high, bands + 2))


def _fmax(mel: MelConfig, rate: int) -> float:
    return rate / 2 if mel.fmax is None else min(mel.fmax, rate / 2)


# Slaney's scale: 3 mel for every 200 Hz up to 1 kHz, then 27 mel for every factor of 6.4
_KNEE_HZ, _KNEE_MEL, _LOG_STEP = 1000.0, 15.0, np.log(6.4) / 27


def _hz_to_mel(hertz: float) -> float:
    if hertz < _KNEE_HZ:
        return hertz * _KNEE_MEL / _KNEE_HZ
    return float(_KNEE_MEL + np.log(hertz / _KNEE_HZ) / _LOG_STEP)


def _mel_to_hz(mel: Float64) -> Float64:
    above = _KNEE_HZ * np.exp(_LOG_STEP * (mel - _KNEE_MEL))
    return np.where(mel < _KNEE_MEL, mel * _KNEE_HZ / _KNEE_MEL, above)


def _mel(wave: Wave, config: WaveGlowConfig) -> Float32:
    """The mel [n_mel, frames] of audio [samples] at the model's rate, in float64 up to the ln."""
    n_fft, hop = config.mel.n_fft, config.hop_length
    bank = filter_bank(config.mel, config.n_mel_channels, config.sampling_rate)
    window = hann(config.mel.win_length, n_fft)
    count = wave.size // hop + 1
    out = np.empty((config.n_mel_channels, count), dtype=np.float32)
    for first in range(0, count, BLOCK):
        stop = min(first + BLOCK, count)
        spectra = np.fft.rfft(frames_of(wave, first, stop - first, n_fft, hop) * window)
        out[:, first:stop] = np.log(np.maximum(bank @ np.abs(spectra).T, FLOOR))
    return out
