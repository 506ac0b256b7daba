"""Audio cut into overlapping frames, and the memory that is worked on block by block."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Spectra = NDArray[np.complex128]
Wave = NDArray[np.floating[Any]]

BLOCK, SAMPLES = 512, 1 << 19  # frames at a time, and what they may hold: 4 MB


def block_of(n_fft: int) -> int:
    """Frames at a time: of fewer, threads wait for one another more often."""
    return max(1, min(BLOCK, SAMPLES // n_fft))


class Scratch(threading.local):
    """Arrays for what is soon forgotten, each thread's own, and kept: new memory takes long."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[Any]] = {}

    def __call__(self, name: str, *shape: int, dtype: Any = np.float64) -> NDArray[Any]:
        """An array [*shape] of any content, valid until the next of this name in this thread."""
        size = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.size < size or kept.dtype != dtype:
            kept = self._kept[name] = np.empty(size, dtype)
        return kept[:size].reshape(shape)


scratch = Scratch()


def reflected(wave: Wave, start: int, stop: int) -> Float64:
    """Samples ``start`` to ``stop - 1`` of audio [samples] that is mirrored at both ends."""
    last = wave.size - 1

    def mirrored(begin: int, end: int) -> Any:
        index = np.arange(begin, end) % max(2 * last, 1)
        return wave[np.minimum(index, 2 * last - index)]

    before, after = mirrored(start, min(stop, 0)), mirrored(max(start, wave.size), stop)
    inside = wave[max(start, 0) : max(stop, 0)]
    return np.concatenate([before, inside, after], dtype=np.float64)


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


def spectra_of(frames: Float64, window: Float64) -> Spectra:
    """The spectra [count, n_fft // 2 + 1] of windowed frames [count, n_fft], in scratch."""
    windowed = scratch("windowed", *frames.shape)
    spectra = scratch("spectra", len(frames), window.size // 2 + 1, dtype=np.complex128)
    return np.fft.rfft(np.multiply(frames, window, out=windowed), out=spectra)
