"""Where an inference's time goes: each kernel against what the device allows."""

from __future__ import annotations

from collections.abc import Iterable

from fastglow.bench.devices import Device
from fastglow.bench.record import Ceilings, KernelRow, short
from fastglow.bench.rounds import Call

Kernel = tuple[str, float, float, Call]


def breakdown(
    launches: Iterable[Kernel], device: Device, ceilings: Ceilings, precision: str
) -> tuple[KernelRow, ...]:
    """Time every launch of one inference and add them up by kernel, in order of appearance.

    Args:
        launches: What ``engine.kernels(frames, batch)`` gives: for each launch of an inference
            its kernel's name, its FLOPs, the bytes that it must read and write, and a callable
            that launches it once on buffers of its own.
        device: Where they run.
        ceilings: Of the device, for the floors.
        precision: Of the engine.
    """
    found: dict[str, KernelRow] = {}
    for name, flop, moved, launch in launches:
        seconds = device.clock_kernel(launch)
        floor = floor_seconds(ceilings, precision, flop, moved)
        before = found.get(name) or KernelRow(precision, name, 0, 0.0, 0.0, 0.0, 0.0)
        found[name] = KernelRow(
            precision,
            name,
            before.launches + 1,
            before.seconds + seconds,
            before.flop + flop,
            before.bytes + moved,
            before.floor_seconds + floor,
        )
    return tuple(_rounded(row) for row in found.values())


def floor_seconds(ceilings: Ceilings, precision: str, flop: float, moved: float) -> float:
    """The least time for so many operations and bytes, the longer of the two."""
    computing = flop / (ceilings.tflops[precision] * 1e12) if precision in ceilings.tflops else 0.0
    moving = moved / (ceilings.bandwidth * 1e12) if ceilings.bandwidth else 0.0
    return max(computing, moving)


def _rounded(row: KernelRow) -> KernelRow:
    return KernelRow(
        row.precision,
        row.name,
        row.launches,
        short(row.seconds),
        row.flop,
        row.bytes,
        short(row.floor_seconds),
    )
