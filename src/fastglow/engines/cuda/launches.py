"""What each launch of an inference costs, for ``fastglow bench --kernels``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastglow.engines.cuda.layers import Buffers, Call
from fastglow.engines.cuda.pack import PackedFlow, Packer


class Launch(NamedTuple):
    """One launch.

    Attributes:
        name: Of the kernel.
        flop: Operations.
        bytes: Read and written, once each.
        call: Launches it.
    """

    name: str
    flop: float
    bytes: float
    call: Call


def launches(
    flows: Sequence[PackedFlow],
    calls: Sequence[Call],
    packer: Packer,
    buffers: Buffers,
    steps: int,
) -> list[Launch]:
    """Every launch of the flows.

    Args:
        flows: In the order in which they run.
        calls: Their launches: each flow's layers, then its coupling.
        packer: For the sizes.
        buffers: That the launches work on.
        steps: That count.
    """
    out, c, size = [], packer.channels, buffers.given.element_size()
    group, rest = buffers.planes.shape[1], iter(calls)
    for flow in flows:
        for i, layer in enumerate(flow.layers):
            kept = 0 if i == len(flow.layers) - 1 else c
            products = 2 * c * (layer.weight.shape[1] + packer.window) + (kept + packer.rows) * c
            read = packer.given if i == 0 else c
            moved = size * (steps * (read + kept) + layer.cond.numel())
            out.append(Launch("layer", 2.0 * steps * products, float(moved), next(rest)))
        moved = 4 * steps * (2 * group + packer.rows)
        out.append(Launch("coupling", 2.0 * steps * flow.channels**2, float(moved), next(rest)))
    return out
