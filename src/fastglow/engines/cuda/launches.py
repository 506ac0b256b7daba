"""The launches of an inference, in order, and what each costs for ``fastglow bench --kernels``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import NamedTuple

from torch import Tensor

from fastglow.engines.cuda.layers import Buffers, Call, Layers
from fastglow.engines.cuda.pack import PackedFlow, Packer
from fastglow.kernels.coupling import coupling, prepare
from fastglow.kernels.latent import collect, frames, spread


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
    packer: Packer, flows: Sequence[PackedFlow], layers: Layers, buffers: Buffers, steps: int
) -> Iterator[Launch]:
    """Everything between a request and its audio.

    Args:
        packer: What packed the flows.
        flows: In the order in which they run.
        layers: How a layer runs.
        buffers: What they work on.
        steps: That count.
    """
    found = layers.together(flows, buffers)
    source = buffers.planes if found is None else found[0]
    yield from _beginning(packer, flows[0], replace(buffers, planes=source), steps)
    costs = [[_layer_cost(packer, flow, i, steps) for i in range(len(flow.layers))]
             for flow in flows]  # fmt: skip
    couplings = [
        _coupling(packer, flow, after, buffers, steps)
        for flow, after in zip(flows, [*flows[1:], None], strict=True)
    ]
    if found is not None:
        inner = [(launch.flop, launch.bytes) for launch in couplings[:-1]]
        flops, bytes_ = zip(*chain(*costs, inner), strict=True)
        yield Launch("layers", sum(flops), sum(bytes_), found[1])
        yield couplings[-1]
    else:
        for flow, cost, last in zip(flows, costs, couplings, strict=True):
            for (flop, moved), call in zip(cost, layers.prepare(flow, buffers), strict=True):
                yield Launch("layer", flop, moved, call)
            yield last
    moved = 8.0 * steps * buffers.planes.shape[1]
    yield Launch("collect", 0.0, moved, partial(collect, buffers.request, buffers.planes))


def _beginning(packer: Packer, first: PackedFlow, b: Buffers, steps: int) -> Iterator[Launch]:
    """The mel and the noise in their places, and the first flow's input."""
    config, size = packer.plan.config, b.given.element_size()
    phases, group, places = b.planes.shape
    if packer.plan.conditioning == "phases":  # else the upsampled mel is there already
        call = partial(
            frames,
            b.request,
            b.mel,
            places=places,
            mels=config.n_mel_channels,
            bands=packer.bands,
            size=phases * group,
            before=config.mel_taps - 1,
            products=packer.products,
        )
        moved = (4 * config.n_mel_channels + size * packer.bands) * steps / phases
        yield Launch("frames", 0.0, moved, call)
    yield Launch("spread", 0.0, 8.0 * steps * group, partial(spread, b.request, b.planes))
    call = partial(
        prepare,
        b.planes,
        b.mask,
        b.given,
        channels=first.channels,
        swapped=first.swapped,
        products=packer.products,
    )
    moved = steps * (2.0 * first.channels + size * packer.given)
    yield Launch("prepare", 0.0, moved, call)


def _layer_cost(packer: Packer, flow: PackedFlow, i: int, steps: int) -> tuple[float, float]:
    """Operations and bytes of layer ``i``."""
    layer, c = flow.layers[i], packer.channels
    kept = 0 if i == len(flow.layers) - 1 else c
    products = 2 * c * (layer.weight.shape[1] + packer.window) + (kept + packer.rows) * c
    read = packer.given if i == 0 else c
    moved = layer.weight.element_size() * (steps * (read + kept) + layer.cond.numel())
    return 2.0 * steps * products, float(moved)


def _coupling(
    packer: Packer, flow: PackedFlow, after: PackedFlow | None, b: Buffers, steps: int
) -> Launch:
    call = partial(
        coupling,
        b.out,
        flow.output_bias,
        flow.inverse,
        b.planes,
        b.mask,
        b.given,
        channels=flow.channels,
        swapped=flow.swapped,
        next_channels=after.channels if after else 0,
        next_swapped=after.swapped if after else False,
        products=packer.products,
    )
    moved = 4.0 * steps * (2 * b.planes.shape[1] + packer.rows)
    return Launch("coupling", 2.0 * steps * flow.channels**2, moved, call)


def holding(call: Call, *tensors: Tensor) -> Call:
    """The call, which keeps alive what its request points to."""

    def run() -> None:
        assert tensors
        call()

    return run
