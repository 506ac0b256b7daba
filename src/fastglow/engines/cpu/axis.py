"""Where the rows of a batch stand on the frame axis, and how the axis is cut into tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastglow.engines.base import Float32, padded
from fastglow.engines.cpu.pack import aligned


@dataclass(frozen=True, slots=True)
class Axis:
    """Rows side by side with gaps of zeros between them.

    Attributes:
        rows: (first place, places) of each row; the first place counts the guard.
        guard: Zeros before the first place and (at least) after the last.
        halo: Places on each side that one flow reads.
        pitch: Floats in one row of a plane.
        mask: [pitch], 1 inside rows.
    """

    rows: tuple[tuple[int, int], ...]
    guard: int
    halo: int
    pitch: int
    mask: Float32

    @property
    def first(self) -> int:
        """The first place."""
        return self.guard

    @property
    def last(self) -> int:
        """One past the last place."""
        return self.rows[-1][0] + self.rows[-1][1]

    @classmethod
    def place(cls, counts: Sequence[int], *, gap: int, halo: int, block: int) -> Axis:
        """Rows of these many places; ``gap`` zeros keep a row's taps off its neighbours."""
        rows, at = [], gap
        for count in counts:
            rows.append((at, count))
            at += count + gap
        pitch = padded(at + gap + block, 16) | 16  # an odd number of cache lines
        mask = aligned((pitch,))
        for first, count in rows:
            mask[first : first + count] = 1
        return cls(tuple(rows), gap, halo, int(pitch), np.asarray(mask))


@dataclass(frozen=True, slots=True)
class Tile:
    """A run of the axis that is computed at once.

    Attributes:
        first: First place computed, halo included.
        frames: Places computed.
        core_first: First place that counts.
        core_last: One past the last.
    """

    first: int
    frames: int
    core_first: int
    core_last: int


def tiles(axis: Axis, widest: int) -> list[Tile]:
    """Cut the axis into tiles of one width whose cores touch.

    All have the same width, so that what one tile leaves in a buffer past its end is never
    mistaken for the zeros past the end of the axis.
    """
    total = axis.last - axis.first
    count = -(-total // widest)
    core = -(-total // count)
    width = min(total, core + 2 * axis.halo)
    out = []
    for begin in range(axis.first, axis.last, core):
        end = min(begin + core, axis.last)
        first = min(max(axis.first, begin - axis.halo), axis.last - width)
        out.append(Tile(first, width, begin, end))
    return out
