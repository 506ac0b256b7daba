# mypy: ignore-errors
"""What one inference hands to the kernels of a CUDA graph: addresses and numbers, 8 bytes each.

A graph repeats its launches with the arguments that they were captured with, so the first kernels
read the addresses of the caller's tensors from a small tensor on the device: one graph serves all
tensors, and what precedes it is one copy of a few hundred bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

MEL, FRAMES = tl.constexpr(0), tl.constexpr(1)
NOISE, SAMPLES, SIGMA, START = tl.constexpr(2), tl.constexpr(3), tl.constexpr(4), tl.constexpr(5)
AUDIO, FLAG, CALL = tl.constexpr(6), tl.constexpr(7), tl.constexpr(8)
WITHIN, TARGET, ROW, PIECE = tl.constexpr(9), tl.constexpr(10), tl.constexpr(11), tl.constexpr(12)
SEEDS = tl.constexpr(13)
WORDS = 13  # before the seeds


def words(
    *,
    mel: Tensor,
    noise: Tensor | None,
    audio: Tensor,
    flag: Tensor,
    call: int,
    within: Tensor,
    target: Tensor,
    row: Tensor,
    piece: Tensor,
    seeds: Sequence[int] = (),
    sigma: float = 1.0,
    start: int = 0,
) -> NDArray[np.int64]:
    """The request, to be copied to the device.

    Args:
        mel: [B, n_mel, frames] float32, contiguous as all others.
        noise: [B, samples] float32, already scaled; or None, and it is drawn.
        audio: [B, samples] float32.
        flag: [1] int64, may be page-locked memory of the host. Set to ``call`` if a value is not
            finite: so nobody need clear it.
        call: A number that no earlier call had, or any but 0 where the flag is cleared.
        within: [N] int64, each place's first sample within its own row, -1 outside utterances.
        target: [N] int64, each place's first sample as an index into ``audio``, -1 where none is
            wanted.
        row: [N] int64, each place's row of the batch.
        piece: [N] int64, each place's index into ``seeds``.
        seeds: 64 bits each, where the noise is drawn.
        sigma: Scale of what is drawn.
        start: Absolute index of each row's first sample, of what is drawn.
    """
    out = np.empty(WORDS + len(seeds), dtype=np.int64)
    out[:WORDS] = (
        mel.data_ptr(), mel.shape[2], 0 if noise is None else noise.data_ptr(), audio.shape[1],
        int(np.float32(sigma).view(np.int32)), start, audio.data_ptr(), flag.data_ptr(),
        call, within.data_ptr(), target.data_ptr(), row.data_ptr(), piece.data_ptr(),
    )  # fmt: skip
    out[WORDS:] = np.array(seeds, dtype=np.uint64).view(np.int64)
    return out


@triton.jit
def integers(request, which: tl.constexpr):
    """The table of int64 that a word points to."""
    return tl.load(request + which).to(tl.pointer_type(tl.int64))


@triton.jit
def floats(request, which: tl.constexpr):
    """The float32 numbers that a word points to."""
    return tl.load(request + which).to(tl.pointer_type(tl.float32))
