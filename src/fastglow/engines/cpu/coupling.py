"""The end of a flow: affine coupling and inverse 1x1 convolution, in float32."""

from __future__ import annotations

import llvmlite.ir as ir

from fastglow.engines.cpu.context import Job, Stage
from fastglow.engines.cpu.functions import exp
from fastglow.engines.cpu.ir import I64, PTR, Emitter, Shape, Value


def emit_coupling(module: ir.Module, shape: Shape) -> ir.Function:
    """coupling(job, stage, scratch, phase, first frame, last frame).

    changed = (changed - b) * exp(-log_s), then the inverse 1x1 convolution, in float32.
    """
    e = Emitter(module, "coupling", [PTR, PTR, PTR, I64, I64, I64], shape)
    job, stage, scratch, phase, begin, end = e.args

    def number(field: Job) -> Value:
        return e.field(job, field)

    def address(field: Job) -> Value:
        return e.pointer(job, field)

    rows, half, pitch = (
        number(Job.AUDIO_ROWS),
        number(Job.GIVEN_ROWS),
        number(Job.AUDIO_PITCH),
    )
    plane = e.mul(phase, number(Job.GROUP_ROWS), pitch)
    base = e.add(plane, number(Job.AUDIO_FRAME))
    outputs = e.mul(phase, number(Job.OUTPUT_ROWS), number(Job.PITCH))
    flow, changed = number(Job.FLOW_AT), number(Job.CHANGED_AT)

    def vector(index: Value) -> None:
        frame = e.add(begin, e.mul(index, shape.lanes))
        audio = e.at(address(Job.AUDIO_IN), e.add(base, frame))
        target = e.at(address(Job.AUDIO_OUT), e.add(base, frame))
        out = e.at(e.pointer(stage, Stage.SUMS), e.add(outputs, number(Job.GUARD), frame))

        def gather(row: Value) -> None:
            e.store(e.load(audio, e.mul(e.add(flow, row), pitch)), scratch, e.mul(row, shape.lanes))

        def couple(row: Value) -> None:
            place = e.mul(e.b.sub(e.add(changed, row), flow), shape.lanes)
            shift = e.load(out, e.mul(row, number(Job.PITCH)))
            scale = e.load(out, e.mul(e.add(row, half), number(Job.PITCH)))
            moved = e.b.fsub(e.load(scratch, place), shift)
            inverse = exp(e, e.b.fsub(e.constant(-0.0), scale))
            e.store(e.b.fmul(moved, inverse), scratch, place)

        mask = e.load(address(Job.MASK), e.add(number(Job.AUDIO_FRAME), frame))

        def mix(row: Value) -> None:
            weights = e.at(address(Job.INVERSE), e.mul(row, rows))

            def term(column: Value, total: Value) -> list[Value]:
                value = e.load(scratch, e.mul(column, shape.lanes))
                return [e.fma(e.broadcast(weights, column), value, total)]

            (total,) = e.loop(0, rows, term, [e.constant(0.0)])
            e.store(e.keep(mask, total), target, e.mul(e.add(flow, row), pitch))

        e.loop(0, rows, gather)
        e.loop(0, half, couple)
        e.loop(0, rows, mix)

    count = e.div(e.add(e.b.sub(end, begin), shape.lanes - 1), shape.lanes)
    e.loop(0, count, vector)
    return e.end()
