"""Streaming on a GPU: each stretch with its whole receptive field around it.

What is short is bounded by launches and by reading the weights (256 channels in fp16 on an H100:
86 frames in 1.8 ms, 861 in 6.0), so the 195 frames around a short stretch cost little; around a
long one they are few. How long a push takes has not been measured.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastglow.config import WaveGlowConfig
from fastglow.engines.base import NO_PHASES, Engine, Float32
from fastglow.errors import InputError
from fastglow.noise import SeededNoise
from fastglow.plan.upsample import FRAMES


class WindowStream:
    """See :class:`fastglow.engines.base.Stream`."""

    def __init__(
        self, engine: Engine, config: WaveGlowConfig, noise: SeededNoise, lookahead: int | None
    ) -> None:
        if not config.has_phases:
            raise InputError(NO_PHASES)
        self._engine, self._noise = engine, noise
        self._before, after = config.receptive_field
        self.lookahead = after if lookahead is None else min(lookahead, after)
        self._size = config.samples(1)
        self._held = np.zeros((config.n_mel_channels, 0), np.float32)
        self._first = self._done = 0  # the first frame held; frames whose audio was given

    def push(self, mel: Float32) -> Float32:
        """See :class:`fastglow.engines.base.Stream`."""
        self._held = np.concatenate([self._held, mel], axis=1)
        return self._until(self._first + self._held.shape[1] - self.lookahead)

    def finish(self) -> Float32:
        """See :class:`fastglow.engines.base.Stream`."""
        return self._until(self._first + self._held.shape[1])

    def _until(self, last: int) -> Float32:
        """The audio up to a frame; then forget what no later frame depends on."""
        if last <= self._done:
            return np.zeros(0, np.float32)
        size, first = self._size, self._first
        noise = replace(self._noise, start=self._noise.start + first * size)
        window = self._engine.infer(self._held[None], noise, [self._held.shape[1]])[0]
        audio: Float32 = window[(self._done - first) * size : (last - first) * size]
        self._done = last
        # Whole blocks of the upsampling are dropped: its rounding depends on their place.
        kept = max(first, (last - self._before) // FRAMES * FRAMES)
        self._held, self._first = self._held[:, kept - first :], kept
        return audio
