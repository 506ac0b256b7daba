"""The innermost loops: a group of output rows times a block of frames, kept in registers.

With AVX-512, 8 rows by 48 frames are 24 accumulators, 3 vectors of the input and 1 weight: 28
of 32 registers, 11 loads for 24 fused multiply-adds. Measured on one Zen 5 core at about 4 GHz:
217 GFLOP/s (K = 512) and 236 (K = 1088) of a peak of 256; 12 by 32 gave 203 and 201, 16 by 16
172 and 222. Every output adds its products in the order of K, one rounding each, whatever the
block, tile, batch or thread: that is why the audio never depends on them.
"""

from __future__ import annotations

from collections.abc import Callable

import llvmlite.ir as ir

from fastglow.engines.cpu.functions import gate
from fastglow.engines.cpu.ir import I64, PTR, Emitter, Shape, Value

# Weights this many numbers on are asked for early: the phase matrices come from main memory.
# 8 kB is what 1 s at 64 channels gained most from, 1.17 times; one frame gained 1.54 times.
AHEAD = 2048


def accumulate(
    e: Emitter, shape: Shape, width: int, sums: list[Value], panel: Value, weight: Value, k: Value
) -> list[Value]:
    """sums[row, vector] += weight[:, row] * panel[:, vector] over K rows of the panel."""
    multiply = {1: e.fma, 2: e.dot, 4: e.dot_bytes}[shape.depth]

    def step(index: Value, *running: Value) -> list[Value]:
        row = e.at(panel, e.mul(index, shape.block))
        weights = e.at(weight, e.mul(index, shape.rows))
        e.prefetch(weights, AHEAD)
        inputs = [e.load(row, v * shape.lanes) for v in range(width)]
        whole = shape.depth == 4  # bytes: numbers of 32 bits, not of floating point
        inputs = [e.b.bitcast(x, e.ints) for x in inputs] if whole else inputs
        out = []
        for r in range(shape.rows):
            factor = e.broadcast(weights, r)
            factor = e.b.bitcast(factor, e.ints) if whole else factor
            for v in range(width):
                out.append(multiply(inputs[v], factor, running[r * width + v]))
        return out

    return e.loop(0, k, step, sums)


Product = Callable[[Emitter, Shape, int, list[Value], Value, Value, Value], list[Value]]


def emit_gate(module: ir.Module, shape: Shape, width: int) -> ir.Function:
    """gate(taps, taps_weight, taps_k, mel, mel_weight, mel_k, bias, acts).

    Half of the group's rows are tanh channels, the other half their sigmoids; acts is a panel.
    """
    kinds = [PTR, PTR, I64, PTR, PTR, I64, PTR, PTR]
    e = Emitter(module, f"gate_{width}", kinds, shape)
    taps, taps_weight, taps_k, mel, mel_weight, mel_k, bias, acts = e.args
    sums = [e.broadcast(bias, r) for r in range(shape.rows) for _ in range(width)]
    sums = accumulate(e, shape, width, sums, taps, taps_weight, taps_k)
    sums = accumulate(e, shape, width, sums, mel, mel_weight, mel_k)
    pairs = shape.rows // 2
    for v in range(width):
        values = [gate(e, sums[r * width + v], sums[(r + pairs) * width + v]) for r in range(pairs)]
        if shape.depth == 2:
            values = [e.pair(*values[r : r + 2]) for r in range(0, pairs, 2)]
        for r, value in enumerate(values):
            e.store(value, acts, r * shape.block + v * shape.lanes)
    return e.end()


def emit_linear(
    module: ir.Module, shape: Shape, width: int, product: Product = accumulate
) -> ir.Function:
    """linear(a, a_weight, a_k, b, b_weight, b_k, bias, start, start_pitch, mask, out, pitch).

    out = start + bias + both products, for one group of rows; zero where the mask is zero. ``a``
    are gate outputs, which ``product`` takes, and ``b`` is audio.
    """
    kinds = [PTR, PTR, I64, PTR, PTR, I64, PTR, PTR, I64, PTR, PTR, I64]
    e = Emitter(module, f"linear_{width}", kinds, shape)
    a, a_weight, a_k, b, b_weight, b_k, bias, start, start_pitch, mask, out, pitch = e.args
    sums = []
    for r in range(shape.rows):
        row, constant = e.at(start, e.mul(start_pitch, r)), e.broadcast(bias, r)
        sums += [e.b.fadd(e.load(row, v * shape.lanes), constant) for v in range(width)]
    sums = product(e, shape, width, sums, a, a_weight, a_k)
    sums = accumulate(e, shape.audio, width, sums, b, b_weight, b_k)
    masks = [e.load(mask, v * shape.lanes) for v in range(width)]
    for r in range(shape.rows):
        row = e.at(out, e.mul(pitch, r))
        for v in range(width):
            e.store(e.keep(masks[v], sums[r * width + v]), row, v * shape.lanes)
    return e.end()


def emit_pack(module: ir.Module, shape: Shape, width: int) -> ir.Function:
    """pack(source, pitch, rows, panel): rows of a plane into a contiguous panel.

    In bfloat16 two rows share one row of the panel; an odd last row is paired with zeros.
    """
    e = Emitter(module, f"pack_{width}", [PTR, I64, I64, PTR], shape)
    source, pitch, rows, panel = e.args

    def copy(row: Value) -> None:
        start, target = e.at(source, e.mul(row, pitch)), e.at(panel, e.mul(row, shape.block))
        for v in range(width):
            e.store(e.load(start, v * shape.lanes), target, v * shape.lanes)

    def narrow(row: Value, second: bool = True) -> None:
        start = e.at(source, e.mul(row, 2, pitch))
        target = e.at(panel, e.mul(row, shape.block))
        for v in range(width):
            even, after = e.load(start, v * shape.lanes), e.at(start, pitch)
            odd = e.load(after, v * shape.lanes) if second else e.constant(0.0)
            e.store(e.pair(even, odd), target, v * shape.lanes)

    if shape.depth != 2:
        e.loop(0, rows, copy)
        return e.end()
    whole = e.div(rows, 2)
    e.loop(0, whole, narrow)
    with e.b.if_then(e.less(e.mul(whole, 2), rows)):
        narrow(whole, second=False)
    return e.end()
