"""How the WN layers of a flow run: fused on Hopper, as two Triton kernels each elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from fastglow.engines.cuda.pack import PackedFlow, PackedLayer, Packer
from fastglow.kernels.common import Products
from fastglow.kernels.gate import gate
from fastglow.kernels.residual import residual

Call = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Buffers:
    """What one pass over an axis of N places works on.

    Attributes:
        streams: Two of [P, N, C].
        given: [P, N, W].
        acts: [P, N, C], for the layers that need it.
        out: [R, P, O, N] float32.
        planes: [P, G, N] float32.
        mel: Flat, the mel's windows.
        mel_strides: (phase, row).
        mask: [N] float32.
        bits: [N / 8] uint8, the mask.
        request: int64, what the caller gave: see :mod:`fastglow.kernels.request`.
    """

    streams: tuple[Tensor, Tensor]
    given: Tensor
    acts: Tensor
    out: Tensor
    planes: Tensor
    mel: Tensor
    mel_strides: tuple[int, int]
    mask: Tensor
    bits: Tensor
    request: Tensor

    def layer(self, i: int) -> tuple[Tensor, Tensor]:
        """What layer ``i`` reads and writes."""
        return self.given if i == 0 else self.streams[i % 2], self.streams[(i + 1) % 2]


class Layers(Protocol):
    """Attributes: partials: R; name: for ``info``; needs_acts: whether ``acts`` is used."""

    partials: int
    name: str
    needs_acts: bool

    def prepare(self, flow: PackedFlow, buffers: Buffers) -> Sequence[Call]:
        """Calls that launch its layers: one a layer, or one for all."""
        ...

    def together(self, flows: Sequence[PackedFlow], buffers: Buffers) -> tuple[Tensor, Call] | None:
        """One launch of flows that follow one another, with the coupling between them.

        Args:
            flows: In the order in which they run; the last one's coupling is left to do.
            buffers: What they work on.

        Returns:
            The planes that the first of them reads, for which the last leaves ``planes`` of the
            buffers, and the launch; None if there is no such kernel for so many places.
        """
        ...

    def warm(self) -> None:
        """Compile what is otherwise compiled for the first input of its length."""
        ...


class TritonLayers:
    """Gate, then residual and output rows, in Triton."""

    partials = 1
    needs_acts = True
    name = "Triton"

    def __init__(self, products: Products) -> None:
        """Take the products' precision."""
        self._products = products

    def prepare(self, flow: PackedFlow, buffers: Buffers) -> Sequence[Call]:
        """See :class:`Layers`."""
        return [self._layer(flow, i, buffers) for i in range(len(flow.layers))]

    def together(self, flows: Sequence[PackedFlow], buffers: Buffers) -> tuple[Tensor, Call] | None:
        """See :class:`Layers`."""
        return None

    def warm(self) -> None:
        """See :class:`Layers`: nothing, a kernel serves all lengths."""

    def _layer(self, flow: PackedFlow, i: int, buffers: Buffers) -> Call:
        layer, b, products = flow.layers[i], buffers, self._products
        x, x_next = b.layer(i)
        first, last = i == 0, i == len(flow.layers) - 1

        def launch() -> None:
            gate(
                x, layer.weight, layer.cond, b.mel, b.mel_strides, layer.bias, 2**i, b.acts,
                products=products,
            )  # fmt: skip
            residual(
                b.acts, x, layer.residual, layer.residual_bias, layer.output, b.mask, x_next,
                b.out, start=flow.start if first else None, first=first, last=last,
                products=products,
            )  # fmt: skip

        return launch


class HopperLayers:
    """All of a layer in one launch; of short inputs, all layers of all flows."""

    needs_acts = False
    name = "fused for sm_90"

    def __init__(self, packer: Packer, dtype: torch.dtype, device: torch.device) -> None:
        """Compile, or load from the cache."""
        from fastglow.kernels import hopper, hopper_flow

        channels, bands, window = packer.channels, packer.bands, packer.window
        config = packer.plan.config
        self._fused = hopper.FusedLayer(channels, dtype, device)
        self._flow: hopper_flow.FusedFlow | None = None
        wn = config.wn
        size = (channels, packer.given, wn.kernel_size, wn.n_layers, bands, window)
        if packer.plan.conditioning == "phases" and hopper_flow.supported(*size):
            self._flow = hopper_flow.FusedFlow(packer.stacked, config.n_group, bands)
        self.partials = self._fused.partials

    def prepare(self, flow: PackedFlow, buffers: Buffers) -> Sequence[Call]:
        """See :class:`Layers`."""
        found = self.together([flow], buffers)
        if found is None:
            return [self._layer(flow, i, buffers) for i in range(len(flow.layers))]
        return [found[1]]

    def together(self, flows: Sequence[PackedFlow], buffers: Buffers) -> tuple[Tensor, Call] | None:
        """See :class:`Layers`."""
        b = buffers
        shape = self._flow.shape(*b.given.shape[:2]) if self._flow else None
        if self._flow is None or shape is None:
            return None
        launch = self._flow.prepare(
            shape,
            flows=(flows[0].index, len(flows)),
            given=b.given,
            mel=b.mel,
            bits=b.bits,
            out=b.out,
            planes=b.planes,
        )
        return self._flow.source(b.planes, len(flows)), launch

    def warm(self) -> None:
        """See :class:`Layers`."""
        if self._flow:
            self._flow.warm()

    def _layer(self, flow: PackedFlow, i: int, buffers: Buffers) -> Call:
        layer, b = flow.layers[i], buffers
        x, x_next = b.layer(i)
        return self._fused.prepare(
            **_weights(layer),
            x=x,
            x_next=x_next,
            mel=b.mel,
            mel_strides=b.mel_strides,
            start=flow.start,
            bits=b.bits,
            out=b.out,
            dilation=2**i,
            first=i == 0,
            last=i == len(flow.layers) - 1,
            shape=None,
        )


def _weights(layer: PackedLayer) -> dict[str, Tensor]:
    return {field.name: getattr(layer, field.name) for field in fields(layer)}


def choose_layers(packer: Packer, dtype: torch.dtype, device: torch.device) -> Layers:
    """The fused kernels where they exist; the choice depends on the model and the device alone."""
    channels, rows, products = packer.channels, packer.rows, packer.products
    if device.type == "cuda" and products in ("fp16", "bf16"):
        try:
            from fastglow.kernels.hopper import supported
            from fastglow.kernels.nvrtc import available
        except ImportError:  # a PyTorch without cuda.bindings
            return TritonLayers(products)
        if available() and supported(channels, rows, torch.cuda.get_device_capability(device)):
            return HopperLayers(packer, dtype, device)
    return TritonLayers(products)
