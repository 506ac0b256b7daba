"""A flow's weights on the device, rounded to the storage type and ordered as the kernels read them.

C is WN's channels padded with zero weights to a multiple of 64; padded channels stay zero. Gate
rows come in groups of 16: 8 tanh rows, then the 8 sigmoid rows of the same channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastglow.engines.base import padded
from fastglow.kernels.common import STORAGE, Products, narrowed
from fastglow.kernels.stacked import Stacked
from fastglow.plan import Plan

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """One WN layer.

    Attributes:
        weight: [2C, taps * X]; X is W for layer 0 and C otherwise.
        bias: [2C] float32.
        cond: [P or 1, 2C, K].
        residual: [C, C]; zeros in the last layer, which has none.
        residual_bias: [C] float32.
        output: [O, C].
    """

    weight: Tensor
    bias: Tensor
    cond: Tensor
    residual: Tensor
    residual_bias: Tensor
    output: Tensor


@dataclass(frozen=True, slots=True)
class PackedFlow:
    """One flow.

    Attributes:
        index: In the order in which flows run, and so in :attr:`Packer.stacked`.
        channels: n.
        swapped: The second half conditions the first.
        layers: WN's layers.
        start: [C, W].
        output_bias: [n] float32.
        inverse: [n, n] float32.
    """

    index: int
    channels: int
    swapped: bool
    layers: tuple[PackedLayer, ...]
    start: Tensor
    output_bias: Tensor
    inverse: Tensor


class Packer:
    """Packs the flows of one plan.

    Attributes:
        plan: Of the flows.
        products: Precision of the layers' products.
        channels: C.
        given: W, channels of layer 0's input.
        rows: O, output rows, the same for all flows.
        bands: Mel bands padded to a multiple of 8, the distance of two mel windows.
        window: K, columns of the conditioning.
        stacked: The weights of all flows, of which the packed ones are parts.
    """

    def __init__(self, plan: Plan, products: Products, device: torch.device) -> None:
        """Bring the upsampling to the device, where it is multiplied with ``cond_layer``.

        Args:
            plan: What to pack.
            products: Precision of the layers' products.
            device: Where to.
        """
        config = plan.config
        self.plan, self.products, self._device = plan, products, device
        self._dtype = STORAGE[products]
        widest = max(config.flow_channels)
        self.channels = padded(config.wn.n_channels, 64)
        self.given = padded(3 * (widest // 2) + 2, 64)
        self.rows = padded(widest, 8)
        self.bands = padded(config.n_mel_channels, 8)
        columns = config.mel_taps * self.bands
        self._upsampling: Tensor | None = None
        if plan.conditioning == "phases":
            self._upsampling = self._double(plan.upsampling).flatten(1)
        else:
            columns = config.n_mel_channels * config.n_group
        self.window = padded(columns, 64)
        self.stacked = Stacked.zeros(
            config.n_flows,
            config.wn.n_layers,
            channels=self.channels,
            taps=config.wn.kernel_size,
            given=self.given,
            phases=config.phases if plan.conditioning == "phases" else 1,
            window=self.window,
            rows=self.rows,
            dtype=self._dtype,
            device=device,
        )

    def flow(self, k: int) -> PackedFlow:
        """Flow ``k``."""
        plan, c = self.plan.flow(k, composed=False), self.channels
        count, width = len(plan.gate), self.plan.config.wn.n_channels
        gates = [self._double(gate) for gate in plan.gate]
        weights = [self._slots(gates[0][..., :-1], gates[0][..., -1])]
        weights += [self._stored(self._pad(gate, -1, c)) for gate in gates[1:]]
        stacked, at = self.stacked, self.plan.config.n_flows - 1 - k
        for i in range(count):
            stacked.weight(at, i)[:] = self._gate_rows(weights[i]).flatten(1)
            stacked.bias[at, i] = self._gate_rows(self._double(plan.gate_bias[i]))
            stacked.cond[at, i] = self._conditioning(plan.conditioning[i])
        stacked.residual[at, :-1, :width, :width] = self._stored(self._double(plan.residual))
        stacked.residual_bias[at, :-1, :width] = self._double(plan.residual_bias)
        stacked.output[at, :, : plan.channels, :width] = self._stored(self._double(plan.output))
        start = self._slots(self._double(plan.start), self._double(plan.start_bias))
        stacked.start[at] = self._pad(start, 0, c)
        output_bias = self._double(plan.output_bias).float()
        inverse = self._double(plan.inverse).float()
        stacked.couple(at, output_bias, inverse, swapped=plan.swapped)
        layers = tuple(
            PackedLayer(
                weight=stacked.weight(at, i),
                bias=stacked.bias[at, i],
                cond=stacked.cond[at, i],
                residual=stacked.residual[at, i],
                residual_bias=stacked.residual_bias[at, i],
                output=stacked.output[at, i],
            )
            for i in range(count)
        )
        return PackedFlow(
            index=at,
            channels=plan.channels,
            swapped=plan.swapped,
            layers=layers,
            start=stacked.start[at],
            output_bias=output_bias,
            inverse=inverse,
        )

    def _double(self, array: Float64) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _stored(self, tensor: Tensor) -> Tensor:
        return narrowed(tensor, self.products)

    def _pad(self, tensor: Tensor, axis: int, size: int) -> Tensor:
        """Zeros at the end of one axis."""
        shape = list(tensor.shape)
        shape[axis] = size - shape[axis]
        return torch.cat([tensor, tensor.new_zeros(shape)], dim=axis)

    def _gate_rows(self, rows: Tensor) -> Tensor:
        """[2 * unpadded, ...] tanh then sigmoid, to [2C, ...] in groups of 8 and 8."""
        half = rows.shape[0] // 2
        pair = [self._pad(part, 0, self.channels) for part in (rows[:half], rows[half:])]
        groups = [part.reshape(-1, 8, *part.shape[1:]) for part in pair]
        return torch.stack(groups, dim=1).flatten(0, 2).contiguous()

    def _slots(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Columns [high | high | low | bias high | bias low | 0...], [..., W].

        They meet [a high | a low | a high | 1 | 1]: a product in 16 bits as good as in fp32.
        """
        high, bias_high = (self._stored(part).double() for part in (weight, bias))
        rest = torch.stack([bias_high, bias - bias_high], dim=-1)
        columns = torch.cat([high, high, weight - high, rest], dim=-1)
        return self._stored(self._pad(columns, -1, self.given))

    def _conditioning(self, matrix: Float64) -> Tensor:
        """[P or 1, 2C, K]; of the phase form the product with the upsampling, newest tap last."""
        config, rows = self.plan.config, self._double(matrix)
        if self._upsampling is None:
            out = self._gate_rows(rows)[None]
        else:
            taps, bands = config.mel_taps, config.n_mel_channels
            composed = (rows @ self._upsampling).view(-1, config.phases, taps, bands).flip(2)
            spread = self._pad(composed, -1, self.bands).flatten(2)
            out = self._gate_rows(self._stored(spread)).transpose(0, 1)
        return self._stored(self._pad(out, -1, self.window)).contiguous()
