"""The buffers of a pass, cut from one growing piece of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fastglow.engines.cuda.aside import Aside
from fastglow.engines.cuda.layers import Buffers
from fastglow.engines.cuda.pack import Packer
from fastglow.engines.cuda.pieces import Axis, Int64, layout
from fastglow.kernels.common import narrowed
from fastglow.kernels.request import WORDS
from fastglow.plan import Plan
from fastglow.plan.upsample import upsampled

if TYPE_CHECKING:
    from fastglow.engines.cuda.layers import Layers

ALIGN = 256  # bytes, between buffers
LAYOUTS = 64  # kept; the least recently used goes first, which no call under way can have


class Workspace:
    """Memory for one pass at a time.

    Attributes:
        phases: P.
    """

    def __init__(
        self,
        plan: Plan,
        packer: Packer,
        layers: Layers,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Take nothing yet."""
        self.phases = plan.config.phases if plan.config.has_phases else 1
        self._plan, self._packer, self._dtype, self._device = plan, packer, dtype, device
        self._partials, self._acts = layers.partials, layers.needs_acts
        self._memory = torch.empty(0, dtype=torch.uint8, device=device)
        self._room = 0  # places

    @property
    def bytes_per_place(self) -> int:
        """What one more place costs, about."""
        return self._bytes(4096) // 4096 + 1

    def holds(self, places: int) -> bool:
        """Whether there is room for an axis of that many places."""
        return places <= self._room

    def grow(self, places: int) -> None:
        """Make that room; what was cut from the old memory must be gone, or both are held."""
        self.release()
        self._memory = torch.zeros(self._bytes(places), dtype=torch.uint8, device=self._device)
        self._room = places

    def release(self) -> None:
        """Hold no memory."""
        self._room = 0
        self._memory = torch.empty(0, dtype=torch.uint8, device=self._device)

    def buffers(self, places: int) -> Buffers:
        """Views for an axis of that many places; :meth:`grow` must have made room."""
        at, views = 0, []
        for shape, dtype in self._shapes(places):
            size = int(np.prod(shape)) * dtype.itemsize
            views.append(self._memory[at : at + size].view(dtype).view(shape))
            at += -(-size // ALIGN) * ALIGN
        x0, x1, given, acts, out, planes, mel, mask, bits, request = views
        strides = (0, self._packer.bands)
        if self._plan.conditioning == "published":
            strides = (places * self._packer.window, self._packer.window)
        return Buffers((x0, x1), given, acts, out, planes, mel, strides, mask, bits, request)

    def _bytes(self, places: int) -> int:
        sizes = (int(np.prod(shape)) * dtype.itemsize for shape, dtype in self._shapes(places))
        return sum(-(-size // ALIGN) * ALIGN for size in sizes)

    def _shapes(self, places: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """In the order of :class:`Buffers`."""
        packer, config, wide = self._packer, self._plan.config, torch.float32
        stream = (self.phases, places, packer.channels)
        if self._plan.conditioning == "published":
            mel = self.phases * places * packer.window
        else:
            mel = (places + config.mel_taps - 1) * packer.bands + packer.window
        return [
            (stream, self._dtype),
            (stream, self._dtype),
            ((self.phases, places, packer.given), self._dtype),
            (stream if self._acts else (1,), self._dtype),
            ((self._partials, self.phases, packer.rows, places), wide),
            ((self.phases, config.n_group, places), wide),
            ((mel,), self._dtype),
            ((places,), wide),
            ((places // 8,), torch.uint8),
            ((WORDS + places,), torch.int64),
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """An axis on the device: the tables of a request, and the mask.

    Attributes:
        within: [N] int64, first sample of each place within its row, -1 outside the pieces.
        target: [N] int64, the same within the batch, -1 also where a place only feeds others.
        row: [N] int64, of the batch.
        piece: [N] int64, of the axis.
        mask: [N] float32.
        bits: [N / 8] uint8, the mask.
    """

    within: Tensor
    target: Tensor
    row: Tensor
    piece: Tensor
    mask: Tensor
    bits: Tensor

    @classmethod
    def make(cls, places: tuple[Int64, Int64, Int64, Int64], aside: Aside) -> Placed:
        """From what :func:`fastglow.engines.cuda.pieces.layout` gives."""
        inside = places[0] >= 0
        bits = np.packbits(inside, bitorder="little")
        return cls(*aside.give(*places, inside.astype(np.float32), bits))


class Layouts:
    """Axes on the device; a batch of lengths met before finds its own there."""

    def __init__(self, size: int, aside: Aside) -> None:
        """Hold none yet.

        Args:
            size: Samples a place.
            aside: What brings them to the device.
        """
        self._size, self._aside = size, aside
        self._kept: OrderedDict[tuple[Axis, int], Placed] = OrderedDict()

    def get(self, axis: Axis, samples: int) -> Placed:
        """An axis of rows of so many samples."""
        key = (axis, samples)
        if key not in self._kept:
            self._kept[key] = Placed.make(layout(axis, samples, self._size), self._aside)
            if len(self._kept) > LAYOUTS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def fill_upsampled(
    buffers: Buffers,
    plan: Plan,
    axis: Axis,
    mel: Tensor,
    lengths: Sequence[int],
    packer: Packer,
) -> None:
    """Write the upsampled mel, which the published conditioning multiplies, where the pieces are.

    Args:
        buffers: Of the pass.
        plan: What runs.
        axis: Where the pieces stand.
        mel: [B, n_mel, frames] float32.
        lengths: Frames of each row that count.
        packer: For the sizes.
    """
    buffers.mel.zero_()
    phases = buffers.planes.shape[0]
    source = buffers.mel.view(phases, axis.places, packer.window)
    for at, piece in axis.pieces:
        first, last = piece.first * phases, (piece.first + piece.count) * phases
        whole = mel[piece.row, :, : lengths[piece.row]].cpu().numpy()
        columns = torch.from_numpy(upsampled(plan, whole, first, last)).to(mel.device)
        steps = columns.T.reshape(piece.count, phases, -1).transpose(0, 1)
        source[:, at : at + piece.count, : columns.shape[0]] = narrowed(steps, packer.products)
