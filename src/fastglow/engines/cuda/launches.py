"""The launches of an inference, and what each costs for ``fastglow bench --kernels``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

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


def inference(
    packer: Packer, flows: Sequence[PackedFlow], layers: Layers, buffers: Buffers
) -> list[Call]:
    """Everything between a request and its audio.

    Args:
        packer: What packed the flows.
        flows: In the order in which they run.
        layers: How a layer runs.
        buffers: What they work on.
    """
    b, plan, first, products = buffers, packer.plan, flows[0], packer.products
    config = plan.config
    phases, group, places = b.planes.shape
    out: list[Call] = []
    if plan.conditioning == "phases":  # else the upsampled mel is there already
        size, before = phases * group, config.mel_taps - 1
        sizes = {"mels": config.n_mel_channels, "bands": packer.bands, "before": before}
        sizes |= {"places": places, "size": size}
        out.append(partial(frames, b.request, b.mel, products=products, **sizes))
    out += [
        partial(spread, b.request, b.planes),
        partial(
            prepare,
            b.planes,
            b.mask,
            b.given,
            channels=first.channels,
            swapped=first.swapped,
            products=products,
        ),
        *calls(packer, flows, layers, b),
        partial(collect, b.request, b.planes),
    ]
    return out


def calls(
    packer: Packer, flows: Sequence[PackedFlow], layers: Layers, buffers: Buffers
) -> list[Call]:
    """Each flow's layers and its coupling.

    Args:
        packer: What packed the flows.
        flows: In the order in which they run.
        layers: How a layer runs.
        buffers: What they work on.
    """
    b, out = buffers, list[Call]()
    for flow, after in zip(flows, [*flows[1:], None], strict=True):
        out += [layers.prepare(flow, i, b) for i in range(len(flow.layers))]
        out.append(
            partial(
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
        )
    return out


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
