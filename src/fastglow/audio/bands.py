"""The triangular filters of a mel, on Slaney's scale, and what they sum.

Source: M. Slaney, Auditory Toolbox (1998).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.audio.frames import Float64, scratch
from fastglow.config import MelConfig
from fastglow.errors import InputError


class Bands:
    """Sums of magnitudes over each filter; from :func:`bands_of`.

    Not BLAS's: its bits depend on the block and on how many threads it has, and the threads of two
    callers fight for the cores (two that read audio on two cores took 2.1 ms a second, not 0.65).
    """

    def __init__(self, mel: MelConfig, bands: int, rate: int) -> None:
        """See :func:`filter_bank`."""
        bank, bins = filter_bank(mel, bands, rate), bins_of(mel, rate)
        self._count = bands
        self._used = used = int(np.flatnonzero(bank.any(axis=0)).max(initial=0)) + 1
        # A bin lies between two bands' centres, on the one's falling and the other's rising side
        between = np.searchsorted(band_centres(mel, bands, rate), bins[:used], "right")
        sides = np.pad(bank, ((1, 1), (0, 0)))
        self._falling, self._rising = (sides[between + side, np.arange(used)] for side in (0, 1))
        self._between, self._first = np.unique(between, return_index=True)

    def __call__(self, spectra: NDArray[np.complexfloating[Any, Any]]) -> Float64:
        """The sums [count, bands] of the magnitudes of spectra [count, n_fft // 2 + 1]."""
        count, shape = len(spectra), (len(spectra), self._used)
        magnitudes, weighted = (scratch(name, *shape) for name in ("magnitudes", "weighted"))
        np.abs(spectra[:, : self._used], out=magnitudes)
        sums = np.zeros((2, count, self._count + 1))
        # Flat: along an axis reduceat keeps Python's lock if there are no more than 500 rows
        first = (np.arange(count)[:, None] * self._used + self._first).ravel()
        for side, weights in zip(sums, (self._falling, self._rising), strict=True):
            np.multiply(magnitudes, weights, out=weighted)
            found = np.add.reduceat(weighted.ravel(), first)
            side[:, self._between] = found.reshape(count, self._first.size)
        total: Float64 = sums[0, :, 1:] + sums[1, :, :-1]
        return total


@lru_cache(maxsize=8)
def bands_of(mel: MelConfig, bands: int, rate: int) -> Bands:
    """The sums of :func:`filter_bank`."""
    return Bands(mel, bands, rate)


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
    bins = bins_of(mel, rate)
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


def bins_of(mel: MelConfig, rate: int) -> Float64:
    """Where the bins of an FFT lie, [n_fft // 2 + 1] Hz."""
    return np.arange(mel.n_fft // 2 + 1, dtype=np.float64) * (rate / mel.n_fft)
