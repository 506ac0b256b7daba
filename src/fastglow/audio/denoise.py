"""The bias denoiser: takes out of the audio the hum that a model makes from nothing.

Source: waveglow's denoiser.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.audio.frames import BLOCK, Float64, Spectra, frames_of, hann
from fastglow.audio.mel import Float32, as_wave
from fastglow.audio.overlap import Overlap
from fastglow.errors import InputError


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
            block: Frames at a time, at most; the result does not depend on it.

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
        self._window, self._hop, self._block = hann(n_fft, n_fft), hop, block
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
        return np.stack([self._whole(row, strength) for row in rows]).reshape(audio.shape)

    def begin(self, strength: float) -> Overlap:
        """The same for audio [samples] that comes in pieces."""

        def quieter(spectra: Spectra) -> Spectra:
            magnitude = np.maximum(np.abs(spectra), np.finfo(np.float64).tiny)
            spectra *= np.maximum(1 - strength * self.bias / magnitude, 0)
            return spectra

        return Overlap(self._window, self._hop, quieter, self._block)

    def _whole(self, wave: NDArray[np.floating[Any]], strength: float) -> Float32:
        denoising = self.begin(strength)
        return np.concatenate([denoising.push(wave), denoising.finish()])
