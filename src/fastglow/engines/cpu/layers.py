"""One task of a flow: a WN layer over one phase and a run of frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import llvmlite.ir as ir

from fastglow.engines.cpu.context import Job, Layer, Stage
from fastglow.engines.cpu.ir import I64, PTR, SIDE, VECTORS, Emitter, Shape, Value
from fastglow.engines.cpu.products import emit_gate, emit_linear, emit_pack


@dataclass(frozen=True, slots=True)
class Products:
    """The inner functions for each number of vectors, 1 to VECTORS."""

    gate: dict[int, ir.Function]
    linear: dict[int, ir.Function]
    pack: dict[int, ir.Function]


def emit_products(module: ir.Module, shape: Shape) -> Products:
    """All inner functions."""
    widths = range(1, VECTORS + 1)
    return Products(
        {w: emit_gate(module, shape, w) for w in widths},
        {w: emit_linear(module, shape, w) for w in widths},
        {w: emit_pack(module, shape, w) for w in widths},
    )


class Block:
    """Emits one block of a layer: pack the inputs, gate, then residual and output rows."""

    def __init__(
        self, e: Emitter, products: Products, shape: Shape, width: int, kernel: int, first: bool
    ) -> None:
        self.e, self.shape, self.kernel, self.first = e, shape, kernel, first
        self.gate, self.linear = products.gate[width], products.linear[width]
        self.pack = products.pack[width]
        self.job, self.layer, self.stage, self.scratch = e.args[:4]
        self.index, self.phase, self.frame = e.args[4:7]

    def number(self, field: Job) -> Value:
        """A number of the job."""
        return self.e.field(self.job, field)

    def address(self, field: Job) -> Value:
        """An address of the job."""
        return self.e.pointer(self.job, field)

    def weight(self, field: Layer) -> Value:
        """An address of the layer."""
        return self.e.pointer(self.layer, field)

    def units(self, rows: Value, depth: int = 0) -> Value:
        """Panel rows that ``rows`` values of K take."""
        depth = depth or self.shape.depth
        return rows if depth == 1 else self.e.div(self.e.add(rows, depth - 1), depth)

    def side(self, k: Value) -> Value:
        """Rows of a product's weights: K, and what stands after them."""
        return self.e.add(k, SIDE) if self.shape.depth == 4 else k

    def plane(self, base: Value, phase: Value, rows: Value, pitch: Value, frame: Value) -> Value:
        """Where a frame of a phase is in [P, rows, pitch]."""
        return self.e.at(base, self.e.add(self.e.mul(phase, rows, pitch), frame))

    def tap(self, j: int, dilation: Value) -> tuple[Value, Value]:
        """(phase, frame shift) of tap j; P * 2**20 keeps the division non-negative."""
        e, phases = self.e, self.number(Job.PHASES)
        offset = e.mul(dilation, j - self.kernel // 2)
        moved = e.add(self.phase, offset, e.mul(phases, 1 << 20))
        frames = e.div(moved, phases)
        return e.b.sub(moved, e.mul(frames, phases)), e.add(frames, -(1 << 20))

    def place(self, field: Stage) -> Value:
        """An address of the stage."""
        return self.e.pointer(self.stage, field)

    def inputs(self) -> tuple[Value, Value, Value]:
        """Pack the taps and the mel; returns (rows of taps, mel panel, rows of mel)."""
        e, dilation = self.e, self.e.b.shl(I64(1), self.index)
        pitch, guard = self.number(Job.PITCH), self.number(Job.GUARD)
        panel = self.scratch
        if self.first:
            rows, panel = self.audio_taps(panel, dilation)
        else:
            channels = self.number(Job.CHANNELS)
            for j in range(self.kernel):
                phase, shift = self.tap(j, dilation)
                frame = e.add(guard, self.frame, shift)
                source = self.plane(self.place(Stage.INPUT), phase, channels, pitch, frame)
                e.b.call(self.pack, [source, pitch, channels, panel])
                panel = e.at(panel, e.mul(self.units(channels), self.shape.block))
            rows = e.mul(self.units(channels), self.kernel)
        return rows, panel, self.mel_taps(panel)

    def audio_taps(self, panel: Value, dilation: Value) -> tuple[Value, Value]:
        """Layer 0 reads the conditioning half of the audio, then a row of ones for each tap."""
        e, rows = self.e, self.number(Job.GIVEN_ROWS)
        pitch, base = self.number(Job.AUDIO_PITCH), self.number(Job.AUDIO_FRAME)
        units, frames = self.units(rows, self.shape.audio.depth), []
        ones = e.at(panel, e.mul(units, self.kernel, self.shape.block))
        for j in range(self.kernel):
            phase, shift = self.tap(j, dilation)
            frames.append(e.add(base, self.frame, shift))
            at = e.add(frames[j], e.mul(self.number(Job.GIVEN_AT), pitch))
            group = self.number(Job.GROUP_ROWS)
            source = self.plane(self.address(Job.AUDIO_IN), phase, group, pitch, at)
            e.b.call(self.pack, [source, pitch, rows, panel])
            panel = e.at(panel, e.mul(units, self.shape.block))
        for j, frame in enumerate(frames):
            mask = e.at(self.address(Job.MASK), frame)
            e.b.call(self.pack, [mask, I64(0), I64(1), e.at(ones, j * self.shape.block)])
        end = e.at(ones, self.kernel * self.shape.block)
        return e.mul(e.add(units, 1), self.kernel), end

    def mel_taps(self, panel: Value) -> Value:
        """Pack J frames of the conditioning input, the newest first; returns the rows."""
        e, rows = self.e, self.number(Job.MEL_ROWS)
        base = e.add(self.number(Job.MEL_FRAME), self.frame)
        phase = e.mul(self.phase, self.number(Job.MEL_PHASE))
        pitch, taps = self.number(Job.MEL_PITCH), self.number(Job.MEL_TAPS)

        def one(j: Value) -> None:
            source = e.at(self.address(Job.MEL), e.add(phase, e.b.sub(base, j)))
            target = e.at(panel, e.mul(j, self.units(rows), self.shape.block))
            e.b.call(self.pack, [source, pitch, rows, target])

        e.loop(0, taps, one)
        return e.mul(self.units(rows), taps)

    def emit(self, last: bool) -> None:
        """The whole block."""
        acts = self.gates()
        if not last:
            self.residual(acts)
        self.output(acts)

    def gates(self) -> Value:
        """Pack the inputs and gate; the panel of what the gates give."""
        e, shape = self.e, self.shape
        rows, mel, mel_rows = self.inputs()
        acts = e.at(mel, e.mul(mel_rows, shape.block))
        channels, pairs = self.number(Job.CHANNELS), shape.rows // 2
        mel_weight = e.at(
            self.weight(Layer.MEL), e.mul(self.phase, e.field(self.layer, Layer.MEL_PHASE))
        )

        def one(group: Value) -> None:
            taps_at = e.at(self.weight(Layer.TAPS), e.mul(group, rows, shape.rows))
            mel_at = e.at(mel_weight, e.mul(group, mel_rows, shape.rows))
            bias = e.at(self.weight(Layer.GATE_BIAS), e.mul(group, shape.rows))
            out = e.at(acts, e.mul(group, pairs // shape.depth * shape.block))
            e.b.call(self.gate, [self.scratch, taps_at, rows, mel, mel_at, mel_rows, bias, out])

        e.loop(0, e.div(channels, pairs), one)
        return acts

    def residual(self, acts: Value) -> None:
        """The next residual stream; layer 0 adds ``start`` of the audio, the others x."""
        e, shape, channels = self.e, self.shape, self.number(Job.CHANNELS)
        pitch, frame = self.number(Job.PITCH), e.add(self.number(Job.GUARD), self.frame)
        here = self.plane(self.place(Stage.INPUT), self.phase, channels, pitch, frame)
        out = self.plane(self.place(Stage.RESULT), self.phase, channels, pitch, frame)
        audio = self.shape.audio.depth
        given = self.units(self.number(Job.GIVEN_ROWS), audio) if self.first else I64(0)
        k = self.units(channels)
        centre = e.at(self.scratch, e.mul(given, self.kernel // 2, shape.block))
        mask = e.at(self.address(Job.MASK), e.add(self.number(Job.AUDIO_FRAME), self.frame))

        def one(group: Value) -> None:
            row = e.mul(group, shape.rows)
            weight = e.at(self.weight(Layer.RESIDUAL), e.mul(row, self.side(k)))
            begin = e.at(self.weight(Layer.START), e.mul(row, given))
            bias = e.at(self.weight(Layer.RESIDUAL_BIAS), row)
            offset = e.mul(row, pitch)
            source = self.address(Job.ZEROS) if self.first else e.at(here, offset)
            step = I64(0) if self.first else pitch
            products = [acts, weight, k, centre, begin, given]
            e.b.call(self.linear, [*products, bias, source, step, mask, e.at(out, offset), pitch])

        e.loop(0, e.div(channels, shape.rows), one)

    def output(self, acts: Value) -> None:
        """Add this layer's share of [b, log_s]."""
        e, shape, channels = self.e, self.shape, self.number(Job.CHANNELS)
        pitch, rows = self.number(Job.PITCH), self.number(Job.OUTPUT_ROWS)
        frame, k = e.add(self.number(Job.GUARD), self.frame), self.units(channels)
        sums = self.plane(self.place(Stage.SUMS), self.phase, rows, pitch, frame)
        out = self.plane(self.place(Stage.OUTPUT), self.phase, rows, pitch, frame)
        mask = e.at(self.address(Job.MASK), e.add(self.number(Job.AUDIO_FRAME), self.frame))

        def one(group: Value) -> None:
            row = e.mul(group, shape.rows)
            weight = e.at(self.weight(Layer.OUTPUT), e.mul(row, self.side(k)))
            bias = e.at(self.weight(Layer.OUTPUT_BIAS), row)
            offset = e.mul(row, pitch)
            source = self.address(Job.ZEROS) if self.first else e.at(sums, offset)
            step = I64(0) if self.first else pitch
            products = [acts, weight, k, acts, weight, I64(0)]
            target = e.at(out, offset)
            e.b.call(self.linear, [*products, bias, source, step, mask, target, pitch])

        e.loop(0, e.div(rows, shape.rows), one)


def emit_layer(
    module: ir.Module,
    shape: Shape,
    make: Callable[[Emitter, int], Block],
    *,
    first: bool,
    last: bool,
) -> ir.Function:
    """layer(job, layer, stage, scratch, index, phase, first frame, last frame).

    ``make`` gives the block of so many vectors that is to be emitted.
    """
    name = f"layer_{'first' if first else 'next'}_{'last' if last else 'inner'}"
    kinds = [PTR, PTR, PTR, PTR, I64, I64, I64]
    blocks = {}
    for width in range(1, VECTORS + 1):
        e = Emitter(module, f"{name}_{width}", kinds, shape)
        make(e, width).emit(last)
        blocks[width] = e.end()
    e = Emitter(module, name, [*kinds, I64], shape)
    *fixed, begin, end = e.args

    def one(block: Value) -> None:
        frame = e.add(begin, e.mul(block, shape.block))
        left = e.b.sub(end, frame)
        for width in range(1, VECTORS + 1):
            low, high = (width - 1) * shape.lanes, width * shape.lanes
            wide = e.b.icmp_signed(">", left, I64(low))
            fits = e.b.icmp_signed("<=", left, I64(high)) if width < VECTORS else wide
            with e.b.if_then(e.b.and_(wide, fits)):
                e.b.call(blocks[width], [*fixed, frame])

    e.loop(0, e.div(e.add(e.b.sub(end, begin), shape.block - 1), shape.block), one)
    return e.end()
