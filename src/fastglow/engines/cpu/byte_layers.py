"""A layer whose products are of bytes: see :mod:`fastglow.engines.cpu.bytes`."""

from __future__ import annotations

from dataclasses import dataclass

import llvmlite.ir as ir

from fastglow.engines.cpu.bytes import (
    GATE_LOW,
    emit_bounds,
    emit_bytes,
    emit_gate,
    emit_steps,
    gate_product,
)
from fastglow.engines.cpu.context import Job, Layer, Stage
from fastglow.engines.cpu.ir import I64, VECTORS, Emitter, Shape, Value
from fastglow.engines.cpu.layers import Block, Products
from fastglow.engines.cpu.products import emit_linear, emit_pack

INFINITE = 3e38
BOUNDS = 6  # blocks of the scratch that hold them: five before the panels, one between


@dataclass(frozen=True, slots=True)
class ByteProducts:
    """The inner functions for each number of vectors, 1 to VECTORS."""

    first: Products
    following: Products
    bounds: dict[int, ir.Function]
    steps: dict[int, ir.Function]
    bytes: dict[int, ir.Function]


def emit_byte_products(module: ir.Module, shape: Shape) -> ByteProducts:
    """All inner functions."""
    widths = range(1, VECTORS + 1)
    linear = {w: emit_linear(module, shape, w, gate_product) for w in widths}
    pack = {w: emit_pack(module, shape, w) for w in widths}
    first, following = (
        Products({w: emit_gate(module, shape, w, first=first) for w in widths}, linear, pack)
        for first in (True, False)
    )
    return ByteProducts(
        first,
        following,
        {w: emit_bounds(module, shape, w) for w in widths},
        {w: emit_steps(module, shape, w) for w in widths},
        {w: emit_bytes(module, shape, w) for w in widths},
    )


class ByteBlock(Block):
    """Emits one block of a layer."""

    def __init__(
        self, e: Emitter, products: ByteProducts, shape: Shape, width: int, kernel: int, first: bool
    ) -> None:
        chosen = products.first if first else products.following
        super().__init__(e, chosen, shape, width, kernel, first)
        self.bounds, self.steps = products.bounds[width], products.steps[width]
        self.bytes, self.width = products.bytes[width], width
        low, step, self.inverse, mel_low, mel_step = (
            e.at(self.scratch, i * shape.block) for i in range(BOUNDS - 1)
        )
        self.taps_range, self.mel_range = (low, step), (mel_low, mel_step)
        self.scratch = e.at(self.scratch, (BOUNDS - 1) * shape.block)

    def gates(self) -> Value:
        """See :class:`Block`."""
        e, shape, channels = self.e, self.shape, self.number(Job.CHANNELS)
        dilation = e.b.shl(I64(1), self.index)
        if self.first:
            rows, mel = self.audio_taps(self.scratch, dilation)
            wide = rows
        else:
            rows, mel = self.stream_taps(dilation)
            wide = self.side(rows)
        mel_rows = self.mel_bytes(mel)
        low = e.at(mel, e.mul(mel_rows, shape.block))
        self.fill(low, GATE_LOW)
        acts = e.at(low, shape.block)
        pairs = shape.rows // 2
        mel_weight = e.at(
            self.weight(Layer.MEL), e.mul(self.phase, e.field(self.layer, Layer.MEL_PHASE))
        )

        def one(group: Value) -> None:
            taps_at = e.at(self.weight(Layer.TAPS), e.mul(group, wide, shape.rows))
            mel_at = e.at(mel_weight, e.mul(group, self.side(mel_rows), shape.rows))
            bias = e.at(self.weight(Layer.GATE_BIAS), e.mul(group, shape.rows))
            out = e.at(acts, e.mul(group, shape.block))
            taps = [self.scratch, taps_at, rows, *self.taps_range]
            e.b.call(self.gate, [*taps, mel, mel_at, mel_rows, *self.mel_range, bias, out, low])

        e.loop(0, e.div(channels, pairs), one)
        return acts

    def stream_taps(self, dilation: Value) -> tuple[Value, Value]:
        """The taps of the residual stream in bytes: rows of them, and the end of the panel."""
        e, channels, pitch = self.e, self.number(Job.CHANNELS), self.number(Job.PITCH)
        sources = []
        for j in range(self.kernel):
            phase, shift = self.tap(j, dilation)
            frame = e.add(self.number(Job.GUARD), self.frame, shift)
            sources.append(self.plane(self.place(Stage.INPUT), phase, channels, pitch, frame))
        self.unbounded(self.taps_range)
        for source in sources:
            e.b.call(self.bounds, [source, pitch, channels, *self.taps_range])
        low, step = self.taps_range
        e.b.call(self.steps, [step, low, self.inverse])
        units, panel = self.units(channels), self.scratch
        for source in sources:
            e.b.call(self.bytes, [source, pitch, channels, low, self.inverse, panel])
            panel = e.at(panel, e.mul(units, self.shape.block))
        return e.mul(units, self.kernel), panel

    def mel_bytes(self, panel: Value) -> Value:
        """J frames of the conditioning input in bytes, the newest first; the rows."""
        e, rows = self.e, self.number(Job.MEL_ROWS)
        base = e.add(self.number(Job.MEL_FRAME), self.frame)
        phase = e.mul(self.phase, self.number(Job.MEL_PHASE))
        pitch, taps = self.number(Job.MEL_PITCH), self.number(Job.MEL_TAPS)
        low, step = self.mel_range

        def source(j: Value) -> Value:
            return e.at(self.address(Job.MEL), e.add(phase, e.b.sub(base, j)))

        def widen(j: Value) -> None:
            e.b.call(self.bounds, [source(j), pitch, rows, low, step])

        def narrow(j: Value) -> None:
            target = e.at(panel, e.mul(j, self.units(rows), self.shape.block))
            e.b.call(self.bytes, [source(j), pitch, rows, low, self.inverse, target])

        self.unbounded(self.mel_range)
        e.loop(0, taps, widen)
        e.b.call(self.steps, [step, low, self.inverse])
        e.loop(0, taps, narrow)
        return e.mul(self.units(rows), taps)

    def unbounded(self, bounds: tuple[Value, Value]) -> None:
        """Bounds that any value widens."""
        self.fill(bounds[0], INFINITE)
        self.fill(bounds[1], -INFINITE)

    def fill(self, address: Value, value: float) -> None:
        """One number in all frames of a block."""
        for v in range(self.width):
            self.e.store(self.e.constant(value), address, v * self.shape.lanes)
