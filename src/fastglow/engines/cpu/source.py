"""What the conditioning multiplies: the mel itself, or the upsampled mel of one tile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastglow.engines.base import Float32
from fastglow.engines.cpu.axis import Axis, Tile
from fastglow.engines.cpu.machine import Machine
from fastglow.engines.cpu.pack import aligned
from fastglow.plan import Plan
from fastglow.plan.upsample import Upsampling, upsampled


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


class Conditioning:
    """What the conditioning multiplies, of an utterance whose mel comes in parts."""

    def __init__(self, plan: Plan, machine: Machine, history: int) -> None:
        """Of nothing yet.

        Args:
            plan: The model.
            machine: For the sizes.
            history: Frames to keep before the newest.
        """
        self._plan, self._machine = plan, machine
        self._kept = history + plan.config.mel_taps
        planes = 1 if plan.conditioning == "phases" else machine.phases
        self._plane = aligned((planes, machine.mel_rows, self._kept + machine.shape.block))
        self._first, self._come = -self._kept, 0  # the frame at 0; frames so far
        self._upsampling = Upsampling(plan)

    def extend(self, mel: Float32) -> None:
        """Take new frames [n_mel, frames]."""
        new = mel.shape[1]
        last = self._come - self._first  # where they go
        if last + new + self._machine.shape.block > self._plane.shape[2]:
            room = self._kept + 4 * new + self._machine.shape.block
            plane = aligned((*self._plane.shape[:2], max(room, self._plane.shape[2])))
            plane[:, :, : self._kept] = self._plane[:, :, last - self._kept : last]
            self._plane, self._first, last = plane, self._come - self._kept, self._kept
        self._plane[:, :, last : last + new] = self._columns(mel)
        self._come += new

    def at(self, frame: int) -> tuple[Float32, int]:
        """The planes [1 or P, rows, pitch], and where in a row a frame of the utterance is."""
        return self._plane, frame - self._first

    def _columns(self, mel: Float32) -> Float32:
        """What new frames add: [1 or P, rows, frames]."""
        if self._plan.conditioning == "phases":
            return mel[None]
        steps = self._upsampling.extend(mel)
        by_phase = steps.reshape(len(steps), mel.shape[1], self._machine.phases).transpose(2, 0, 1)
        return by_phase.astype(np.float32)
