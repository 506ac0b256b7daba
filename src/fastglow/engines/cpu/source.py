"""What the conditioning multiplies: the mel itself, or the upsampled mel of one tile."""

from __future__ import annotations

from collections.abc import Sequence

from fastglow.engines.base import Float32
from fastglow.engines.cpu.axis import Axis, Tile
from fastglow.engines.cpu.pack import aligned
from fastglow.plan import Plan
from fastglow.plan.upsample import upsampled


def mel_plane(axis: Axis, mel: Float32) -> Float32:
    """The mels of all rows on the axis: [1, M, pitch]."""
    plane = aligned((1, mel.shape[1], axis.pitch))
    for row, (at, count) in enumerate(axis.rows):
        plane[0, :, at : at + count] = mel[row, :, :count]
    return plane


def fill_upsampled(
    plane: Float32, plan: Plan, axis: Axis, tile: Tile, mel: Float32, lengths: Sequence[int]
) -> None:
    """The upsampled mels under one tile, into [P, M*G, pitch of the tile]."""
    phases, wide = plane.shape[:2]
    plane[...] = 0
    for row, (at, count) in enumerate(axis.rows):
        low, high = max(at, tile.first), min(at + count, tile.first + tile.frames)
        if low >= high:
            continue
        utterance = mel[row, :, : lengths[row]]
        steps = upsampled(plan, utterance, (low - at) * phases, (high - at) * phases)
        by_phase = steps.reshape(wide, high - low, phases).transpose(2, 0, 1)
        begin = axis.guard + low - tile.first
        plane[:, :, begin : begin + high - low] = by_phase
