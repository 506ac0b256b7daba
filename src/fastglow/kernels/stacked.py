"""The weights of all flows in one tensor a kind, so that one launch can go from flow to flow.

What the kernels of a layer read are parts of these: nothing is held twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Stacked:
    """Weights of F flows of L layers, in the order in which they run.

    Attributes:
        gate0: [F, 2C, taps * W] ``weight`` of layer 0.
        gate: [F, L - 1, 2C, taps * C] of the other layers.
        bias: [F, L, 2C] float32.
        cond: [F, L, P or 1, 2C, K].
        residual: [F, L, C, C].
        residual_bias: [F, L, C] float32.
        output: [F, L, O, C].
        start: [F, C, W].
        output_bias: [F, O] float32.
        inverse: [F, O, O] float32, of n channels in the last n rows and columns.
        kinds: [F, 2] int32: n, and whether the second half conditions the first.
    """

    gate0: Tensor
    gate: Tensor
    bias: Tensor
    cond: Tensor
    residual: Tensor
    residual_bias: Tensor
    output: Tensor
    start: Tensor
    output_bias: Tensor
    inverse: Tensor
    kinds: Tensor

    @classmethod
    def zeros(
        cls,
        flows: int,
        layers: int,
        *,
        channels: int,
        taps: int,
        given: int,
        phases: int,
        window: int,
        rows: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Stacked:
        """Memory for them.

        Args:
            flows: F.
            layers: L.
            channels: C.
            taps: Of a layer.
            given: W, width of layer 0's input.
            phases: P, or 1 where all phases have one conditioning.
            window: K, columns of the conditioning.
            rows: O, output rows.
            dtype: Of the weights.
            device: Where they are.
        """

        def zeros(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.zeros(flows, *shape, dtype=dtype, device=device)

        single = torch.float32
        return cls(
            gate0=zeros(2 * channels, taps * given),
            gate=zeros(layers - 1, 2 * channels, taps * channels),
            bias=zeros(layers, 2 * channels, dtype=single),
            cond=zeros(layers, phases, 2 * channels, window),
            residual=zeros(layers, channels, channels),
            residual_bias=zeros(layers, channels, dtype=single),
            output=zeros(layers, rows, channels),
            start=zeros(channels, given),
            output_bias=zeros(rows, dtype=single),
            inverse=zeros(rows, rows, dtype=single),
            kinds=zeros(2, dtype=torch.int32),
        )

    def weight(self, flow: int, layer: int) -> Tensor:
        """Of the gate of one layer."""
        return self.gate[flow, layer - 1] if layer else self.gate0[flow]

    def couple(self, flow: int, bias: Tensor, inverse: Tensor, *, swapped: bool) -> None:
        """Write what ends a flow: [n] and [n, n], and which half changes."""
        n = len(bias)
        self.output_bias[flow, :n] = bias
        self.inverse[flow, -n:, -n:] = inverse
        self.kinds[flow] = torch.tensor([n, int(swapped)], dtype=torch.int32)
