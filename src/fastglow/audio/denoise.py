"""The bias denoiser: takes out of the audio the hum that a model makes from nothing.

Source: waveglow's denoiser.py; the inverse STFT divides by the summed squared windows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.audio.mel import Float32, Float64, as_wave, frames_of, hann
from fastglow.errors import InputError

BLOCK = 512  # frames at a time: 4 MB each for the windows and for their spectra


class Denoiser:
    """Subtracts a model's bias spectrum from the magnitude of every frame, keeping the phase.

    Safe to call from several threads.
    """

    def __init__(
        self, bias_audio: Any, n_fft: int = 1024, hop: int = 256, *, block: int = BLOCK
    ) -> None:
        """Learns the bias spectrum.

        Args:
            bias_audio: [samples] What the model says to a mel of zeros at sigma 0; the first
                frame counts.
            n_fft: Samples a frame, even.
            hop: Samples from frame to frame, at most ``n_fft // 4`` as in the original.
            block: Frames at a time; the result does not depend on it.

        Raises:
            InputError: The audio or a number is unusable.
        """
        if n_fft < 4 or n_fft % 2 or not 1 <= hop <= n_fft // 4 or block < 1:
            raise InputError(
                f"n_fft={n_fft}, hop={hop}, block={block}; expected an even n_fft, "
                "a hop of at most n_fft / 4 and a positive block"
            )
        bias = as_wave(bias_audio)
        if bias.ndim != 1:
            raise InputError(f"the bias audio has shape {list(bias.shape)}; expected [samples]")
        self.n_fft, self.hop, self.block = n_fft, hop, block
        self._window = hann(n_fft, n_fft)
        first = frames_of(bias, 0, 1, n_fft, hop)
        self.bias: Float64 = np.abs(np.fft.rfft(first * self._window))[0]

    def __call__(self, audio: NDArray[np.floating[Any]], strength: float) -> Float32:
        """The audio without ``strength`` times the bias.

        Args:
            audio: [..., samples] floating point.
            strength: 0 returns the audio as it is; 0.01 to 0.1 is usual.

        Returns:
            float32, of the audio's shape.

        Raises:
            InputError: The strength is negative or not finite.
        """
        if not (np.isfinite(strength) and strength >= 0):
            raise InputError(f"a denoiser strength of {strength}; expected 0 or more")
        audio = np.asarray(audio)
        if strength == 0 or audio.size == 0:
            return audio.astype(np.float32, copy=False)
        rows = audio.reshape(-1, audio.shape[-1])
        return np.stack([self._denoise(row, strength) for row in rows]).reshape(audio.shape)

    def _denoise(self, wave: NDArray[np.floating[Any]], strength: float) -> Float32:
        """Overlap-add of [2, n_fft] a frame: the windowed frame and the squared window."""
        n_fft, hop, pad = self.n_fft, self.hop, self.n_fft // 2
        count = wave.size // hop + 1
        reach = -(-n_fft // hop)  # hops that a frame touches
        out = np.empty(wave.size, dtype=np.float32)
        carry = np.zeros((2, reach, hop))  # sums that later frames add to
        for first in range(0, count, self.block):
            stop = min(first + self.block, count)
            frames = self._filtered(frames_of(wave, first, stop - first, n_fft, hop), strength)
            sums = np.zeros((2, stop - first + reach, hop))
            sums[:, :reach] = carry
            self._overlap_add(sums, frames, reach)
            done = stop - first if stop < count else stop - first + reach
            _emit(out, sums[:, :done], first * hop - pad)
            carry = sums[:, stop - first :]
        return out

    def _filtered(self, frames: Float64, strength: float) -> Float64:
        """Windowed frames [count, n_fft] to windowed, denoised ones."""
        spectra = np.fft.rfft(frames * self._window)
        magnitude = np.maximum(np.abs(spectra), np.finfo(np.float64).tiny)
        spectra *= np.maximum(1 - strength * self.bias / magnitude, 0)
        return np.fft.irfft(spectra, self.n_fft) * self._window

    def _overlap_add(self, sums: Float64, frames: Float64, reach: int) -> None:
        """Adds frames [count, n_fft] into sums [2, count + reach, hop], the earliest first.

        A sample is a sum in the order of the frames, whatever the block, so that the rounding
        is the same.
        """
        count, room = len(frames), reach * self.hop - self.n_fft
        pieces = np.pad(frames, ((0, 0), (0, room))).reshape(count, reach, self.hop)
        weight = np.pad(self._window**2, (0, room)).reshape(reach, self.hop)
        for k in reversed(range(reach)):
            sums[0, k : k + count] += pieces[:, k]
            sums[1, k : k + count] += weight[k]


def _emit(out: Float32, sums: Float64, start: int) -> None:
    """Writes finished sums [2, hops, hop], whose first sample is sample ``start`` of ``out``."""
    total, weight = sums.reshape(2, -1)
    low = max(-start, 0)
    high = max(low, min(total.size, out.size - start))
    out[start + low : start + high] = total[low:high] / weight[low:high]
