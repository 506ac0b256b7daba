"""The mel spectrogram that WaveGlow reads: Tacotron 2's, in numpy alone.

Frame t is the magnitude of the FFT of ``n_fft`` samples around sample ``t * hop`` (reflected at
the ends) under a periodic Hann window, through area-normalised triangular filters on Slaney's
mel scale, floored at 1e-5, natural logarithm.

Source: tacotron2's layers.py and stft.py; M. Slaney, Auditory Toolbox (1998).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.audio.bands import bands_of
from fastglow.audio.frames import Wave, block_of, frames_of, hann, spectra_of
from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError

Float32 = NDArray[np.float32]

FLOOR = 1e-5  # magnitude; its logarithm, -11.513, is the least value of a mel
MAX_PEAK = 100.0  # float audio above this is surely 16-bit samples that nobody divided by 32768
FULL_SCALE = {"int16": 2.0**15, "int32": 2.0**31}
RATES = (1000, 768000)  # Hz that audio may have


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


def _mel(wave: Wave, config: WaveGlowConfig) -> Float32:
    """The mel [n_mel, frames] of audio [samples] at the model's rate, in float64 up to the ln."""
    n_fft, hop = config.mel.n_fft, config.hop_length
    bands = bands_of(config.mel, config.n_mel_channels, config.sampling_rate)
    window = hann(config.mel.win_length, n_fft)
    count = wave.size // hop + 1
    out = np.empty((config.n_mel_channels, count), dtype=np.float32)
    block = block_of(n_fft)
    for first in range(0, count, block):
        stop = min(first + block, count)
        frames = frames_of(wave, first, stop - first, n_fft, hop)
        sums = bands(spectra_of(frames, window))
        out[:, first:stop] = np.log(np.maximum(sums, FLOOR)).T
    return out
