"""Where the rows of a batch stand on the frame axis; long rows are cut into pieces.

A piece is computed with the whole receptive field around it, so its samples are those of the uncut
row, bit for bit: 195 more frames a cut in a published model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a row.

    Attributes:
        row: Of the batch.
        first: First place computed.
        count: Places computed.
        core_first: First place that counts.
        core_last: One past the last.
    """

    row: int
    first: int
    count: int
    core_first: int
    core_last: int


@dataclass(frozen=True, slots=True)
class Axis:
    """Pieces side by side with gaps of zeros between them.

    Attributes:
        pieces: (first place on the axis, piece).
        places: N, the bucket.
    """

    pieces: tuple[tuple[int, Piece], ...]
    places: int


def cut(counts: Sequence[int], widest: int, field: tuple[int, int]) -> list[Piece]:
    """Pieces of at most ``widest`` places, with the receptive field around each.

    Args:
        counts: Places of each row.
        widest: Places, more than the receptive field.
        field: Places (before, after) that a place depends on.
    """
    out = []
    before, after = field
    core = widest - before - after
    for row, count in enumerate(counts):
        step = count if count <= widest else core
        for begin in range(0, count, step):
            end = min(begin + step, count)
            first, last = max(0, begin - before), min(count, end + after)
            out.append(Piece(row, first, last - first, begin, end))
    return out


def axes(pieces: Sequence[Piece], widest: int, gap: int) -> Iterator[Axis]:
    """The pieces in order on as few axes of at most ``widest`` places as that takes."""
    held: list[tuple[int, Piece]] = []
    at = 0
    for piece in pieces:
        if held and at + piece.count > widest:
            yield Axis(tuple(held), bucket(at - gap))
            held, at = [], 0
        held.append((at, piece))
        at += piece.count + gap
    yield Axis(tuple(held), bucket(at - gap))


def bucket(places: int) -> int:
    """The next of the sizes that get a CUDA graph: at most 3 % or 31 places more."""
    step = max(32, 1 << max(0, places.bit_length() - 6))
    return -(-places // step) * step


def layout(axis: Axis, samples: int, size: int) -> tuple[Int64, Int64, Int64, Int64]:
    """Where the samples of each place come from and go to.

    Args:
        axis: Where the pieces are.
        samples: Of a row of the batch.
        size: Samples a place.

    Returns:
        [N] each: first sample within the own row, -1 outside the pieces; first sample within the
        batch, -1 also where a place only feeds its neighbours; row; index of the piece.
    """
    within, target = (np.full(axis.places, -1, dtype=np.int64) for _ in range(2))
    rows, pieces = (np.zeros(axis.places, dtype=np.int64) for _ in range(2))
    for i, (at, piece) in enumerate(axis.pieces):
        held = slice(at, at + piece.count)
        within[held] = np.arange(piece.first, piece.first + piece.count) * size
        core = slice(piece.core_first - piece.first, piece.core_last - piece.first)
        target[held][core] = within[held][core] + piece.row * samples
        rows[held], pieces[held] = piece.row, i
    return within, target, rows, pieces
