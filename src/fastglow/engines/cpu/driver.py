"""The loop that each thread runs: claim tasks of a stage, wait for the stage, go on.

Tasks are claimed through an atomic counter, so a pass is right with any number of threads: one
that starts late, or never, costs speed only. Nothing is summed across tasks, so neither does
the sound depend on who did what.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import llvmlite.ir as ir

from fastglow.engines.cpu.byte_layers import ByteBlock, emit_byte_products
from fastglow.engines.cpu.context import Job, Layer, Stage
from fastglow.engines.cpu.coupling import emit_coupling
from fastglow.engines.cpu.ir import I32, I64, PTR, Emitter, Shape, Value
from fastglow.engines.cpu.layers import Block, emit_layer, emit_products

SPINS = 4000  # polls, about 10 us, before a waiting thread offers its core to others
DONE = 8  # its own cache line


def build_module(shape: Shape, kernel: int) -> ir.Module:
    """Everything that the engine calls, for WN kernels of this size."""
    module = ir.Module("fastglow")
    make: Callable[..., Block]
    if shape.depth == 4:
        make = partial(ByteBlock, products=emit_byte_products(module, shape))
    else:
        make = partial(Block, products=emit_products(module, shape))
    layers = {}
    for first in (True, False):
        block = partial(_block, make, shape, kernel, first)
        for last in (True, False):
            layers[first, last] = emit_layer(module, shape, block, first=first, last=last)
    _emit_flow(module, shape, layers, emit_coupling(module, shape))
    return module


def _block(
    make: Callable[..., Block], shape: Shape, kernel: int, first: bool, e: Emitter, width: int
) -> Block:
    return make(e, shape=shape, width=width, kernel=kernel, first=first)


def _emit_flow(
    module: ir.Module,
    shape: Shape,
    layers: dict[tuple[bool, bool], ir.Function],
    coupling: ir.Function,
) -> None:
    """flow(job, scratch): one flow over a run of frames, all its layers and the coupling."""
    e = Emitter(module, "flow", [PTR, PTR], shape, exported=True)
    job, scratch = e.args
    count, table = e.field(job, Job.LAYERS), e.pointer(job, Job.LAYER_TABLE)
    stages = e.pointer(job, Job.STAGE_TABLE)

    def layer(index: Value, place: Value, phase: Value, first: Value, last: Value) -> None:
        row = e.b.gep(table, [e.mul(index, len(Layer))], source_etype=I64)
        is_first = e.b.icmp_signed("==", index, I64(0))
        is_last = e.b.icmp_signed("==", e.add(index, 1), count)
        for (wants_first, wants_last), function in layers.items():
            match = e.b.and_(
                is_first if wants_first else e.b.not_(is_first),
                is_last if wants_last else e.b.not_(is_last),
            )
            with e.b.if_then(match):
                e.b.call(function, [job, row, place, scratch, index, phase, first, last])

    def couple(place: Value, phase: Value, first: Value, last: Value) -> None:
        e.b.call(coupling, [job, place, scratch, phase, first, last])

    def stage(index: Value) -> None:
        place = e.b.gep(stages, [e.mul(index, len(Stage))], source_etype=I64)
        frames = e.field(place, Stage.FIRST), e.field(place, Stage.LAST)
        with e.b.if_else(e.less(index, count)) as (is_layer, is_coupling):
            with is_layer:
                _run_tasks(e, job, index, partial(layer, index, place), *frames)
            with is_coupling:
                _run_tasks(e, job, index, partial(couple, place), *frames)

    e.loop(0, e.add(count, 1), stage)
    e.end()


def _run_tasks(
    e: Emitter,
    job: Value,
    stage: Value,
    task: Callable[[Value, Value, Value], object],
    first: Value,
    last: Value,
) -> None:
    """Claim and run tasks (phase, run of frames) until none is left, then wait for all."""
    b = e.b
    chunks, chunk = e.field(job, Job.CHUNKS), e.field(job, Job.CHUNK)
    total = e.mul(chunks, e.field(job, Job.PHASES))
    counters = e.pointer(job, Job.COUNTERS)
    claimed = b.gep(counters, [e.mul(stage, 2 * DONE)], source_etype=I64)
    done = b.gep(claimed, [I64(DONE)], source_etype=I64)
    claim, work, wait = (b.append_basic_block(n) for n in ("claim", "work", "wait"))
    b.branch(claim)
    b.position_at_end(claim)
    index = b.atomic_rmw("add", claimed, I64(1), "monotonic")
    b.cbranch(e.less(index, total), work, wait)
    b.position_at_end(work)
    phase = e.div(index, chunks)
    offset = e.mul(b.sub(index, e.mul(phase, chunks)), chunk)
    begin = e.minimum(e.add(first, offset), last)
    end = e.minimum(e.add(begin, chunk), last)
    task(phase, begin, end)
    b.atomic_rmw("add", done, I64(1), "release")
    b.branch(claim)
    b.position_at_end(wait)
    give_way = b.inttoptr(e.field(job, Job.YIELD), ir.FunctionType(I32, []).as_pointer())
    _wait(e, done, total, give_way)


def _wait(e: Emitter, done: Value, total: Value, give_way: Value) -> None:
    """Spin until ``done`` reaches ``total``, calling ``give_way`` now and then."""
    b = e.b
    before = b.block
    poll, again, offer, ready = (
        b.append_basic_block(n) for n in ("poll", "again", "offer", "ready")
    )
    b.branch(poll)
    b.position_at_end(poll)
    spins = b.phi(I64)
    spins.add_incoming(I64(0), before)
    seen = b.load_atomic(done, "acquire", 8, typ=I64)
    b.cbranch(e.less(seen, total), again, ready)
    b.position_at_end(again)
    following = e.add(spins, 1)
    spins.add_incoming(following, again)
    b.cbranch(e.less(following, SPINS), poll, offer)
    b.position_at_end(offer)
    b.call(give_way, [])
    spins.add_incoming(I64(0), offer)
    b.branch(poll)
    b.position_at_end(ready)
