"""How one WN layer runs: fused on Hopper, as two Triton kernels elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fastglow.engines.cuda.pack import PackedFlow
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

    def prepare(self, flow: PackedFlow, i: int, buffers: Buffers) -> Call:
        """A call that launches layer ``i``."""
        ...


class TritonLayers:
    """Gate, then residual and output rows, in Triton."""

    partials = 1
    needs_acts = True
    name = "Triton"

    def __init__(self, products: Products) -> None:
        """Take the products' precision."""
        self._products = products

    def prepare(self, flow: PackedFlow, i: int, buffers: Buffers) -> Call:
        """See :class:`Layers`."""
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
    """All of a layer in one launch."""

    needs_acts = False
    name = "fused for sm_90"

    def __init__(self, channels: int, dtype: torch.dtype, device: torch.device) -> None:
        """Compile, or load from the cache."""
        from fastglow.kernels.hopper import FusedLayer

        self._fused = FusedLayer(channels, dtype, device)
        self.partials = self._fused.partials

    def prepare(self, flow: PackedFlow, i: int, buffers: Buffers) -> Call:
        """See :class:`Layers`."""
        layer, b = flow.layers[i], buffers
        x, x_next = b.layer(i)
        return self._fused.prepare(
            x=x,
            x_next=x_next,
            weight=layer.weight,
            cond=layer.cond,
            mel=b.mel,
            mel_strides=b.mel_strides,
            bias=layer.bias,
            residual=layer.residual,
            residual_bias=layer.residual_bias,
            start=flow.start,
            output=layer.output,
            bits=b.bits,
            out=b.out,
            dilation=2**i,
            first=i == 0,
            last=i == len(flow.layers) - 1,
        )


def choose_layers(
    channels: int, rows: int, products: Products, dtype: torch.dtype, device: torch.device
) -> Layers:
    """The fused kernel where it exists; the choice depends on the model and the device alone."""
    if device.type == "cuda" and products in ("fp16", "bf16"):
        try:
            from fastglow.kernels.hopper import supported
            from fastglow.kernels.nvrtc import available
        except ImportError:  # a PyTorch without cuda.bindings
            return TritonLayers(products)
        if available() and supported(channels, rows, torch.cuda.get_device_capability(device)):
            return HopperLayers(channels, dtype, device)
    return TritonLayers(products)
