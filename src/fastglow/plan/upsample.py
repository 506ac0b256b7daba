"""The published upsampling, for any hop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastglow.plan.plan import Plan

Float64 = NDArray[np.float64]
FRAMES = 16  # at a time, always: a product's rounding may depend on its shape


def upsampled(plan: Plan, mel: NDArray[np.floating]) -> Float64:
    """The transposed convolution and the squeeze, without bias.

    Args:
        plan: The model.
        mel: [M, frames].

    Returns:
        [M*G, steps] float64, rows as ``cond_layer`` reads them.
    """
    config = plan.config
    bands, frames, hop = config.n_mel_channels, mel.shape[1], config.hop_length
    kernel = plan.weights["upsample.weight"].reshape(bands, -1).T  # [o*kernel, m]
    wave = np.zeros((bands, frames * hop + config.upsample_kernel))
    for first in range(0, frames, FRAMES):
        block = np.zeros((bands, FRAMES))
        part = mel[:, first : first + FRAMES]
        block[:, : part.shape[1]] = part
        columns = (kernel @ block).reshape(bands, -1, FRAMES)
        for f in range(part.shape[1]):
            at = (first + f) * hop
            wave[:, at : at + config.upsample_kernel] += columns[:, :, f]
    steps = config.steps(frames)
    grouped = wave[:, : steps * config.n_group].reshape(bands, steps, config.n_group)
    return grouped.transpose(0, 2, 1).reshape(-1, steps)
