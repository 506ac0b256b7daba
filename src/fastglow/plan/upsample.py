"""The published upsampling, for any hop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastglow.plan.plan import Plan

Float64 = NDArray[np.float64]
FRAMES = 16  # at a time, always: a product's rounding may depend on its shape


def upsampled(
    plan: Plan, mel: NDArray[np.floating], first: int = 0, last: int | None = None
) -> Float64:
    """The transposed convolution and the squeeze, without bias.

    Args:
        plan: The model.
        mel: [M, frames], the whole utterance.
        first: First step wanted.
        last: One past the last step wanted; by default all.

    Returns:
        [M*G, last - first] float64, rows as ``cond_layer`` reads them; the same bits whichever
        steps are asked for.
    """
    config = plan.config
    bands, frames, hop = config.n_mel_channels, mel.shape[1], config.hop_length
    last = config.steps(frames) if last is None else last
    begin, end = first * config.n_group, last * config.n_group  # samples
    reach = config.upsample_kernel
    wave = np.zeros((bands, end - begin))
    earliest = max(0, begin // hop - config.mel_taps) // FRAMES * FRAMES
    for block in range(earliest, min(frames, -(-end // hop)), FRAMES):
        part = mel[:, block : block + FRAMES]
        inputs = np.zeros((bands, FRAMES))
        inputs[:, : part.shape[1]] = part
        columns = (plan.upsample_kernel @ inputs).reshape(bands, -1, FRAMES)
        for f in range(part.shape[1]):
            at = (block + f) * hop - begin
            low, high = max(0, at), min(end - begin, at + reach)
            if low < high:
                wave[:, low:high] += columns[:, low - at : high - at, f]
    grouped = wave.reshape(bands, last - first, config.n_group)
    return grouped.transpose(0, 2, 1).reshape(-1, last - first)


class Upsampling:
    """:func:`upsampled` of an utterance whose mel comes in parts: the same bits."""

    def __init__(self, plan: Plan) -> None:
        """Of nothing yet."""
        self._plan, self._come = plan, 0
        self._mel = np.zeros((plan.config.n_mel_channels, 0), np.float32)

    def extend(self, mel: NDArray[np.float32]) -> Float64:
        """What new frames [n_mel, frames] add: [M*G, steps]."""
        config, come, new = self._plan.config, self._come, mel.shape[1]
        # Whole blocks are kept: the rounding depends on a frame's place in its block.
        begin = max(0, come - config.mel_taps) // FRAMES * FRAMES
        held = np.concatenate([self._mel, mel], axis=1)
        self._mel = held[:, held.shape[1] - (come + new - begin) :]
        self._come += new
        first, last = (config.steps(n - begin) for n in (come, come + new))
        return upsampled(self._plan, self._mel, first, last)
