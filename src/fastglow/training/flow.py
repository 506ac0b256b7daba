"""One flow of the inverse as it is trained: stacked parameters, and its WN in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastglow.config import WaveGlowConfig


def layer(
    x: Tensor, cond: Tensor, weight: Tensor, res: Tensor | None, res_bias: Tensor | None,
    fold: Tensor, dilation: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One WN layer.

    Args:
        x: [B, T, C], the residual stream.
        cond: [B, T, 2C], conditioning with every bias.
        weight: [taps, C, 2C].
        res: [C, C]; None in the last layer.
        res_bias: [C]; None in the last layer.
        fold: [C, E], ``end`` applied to this layer's skip.
        dilation: Steps between taps.

    Returns:
        The next residual stream [B, T, C] and this layer's share of the output [B, T, E].
    """
    taps, channels = weight.shape[:2]
    reach = (taps // 2) * dilation
    padded = functional.pad(x, (0, 0, reach, reach))
    gates = cond
    for j in range(taps):
        gates = gates + padded[:, j * dilation : j * dilation + x.shape[1]] @ weight[j]
    acts = torch.tanh(gates[..., :channels]) * torch.sigmoid(gates[..., channels:])
    if res is not None and res_bias is not None:
        x = x + acts @ res + res_bias
    return x, acts @ fold


class FlowParameters(nn.Module):
    """The parameters of one flow; products are written ``x @ weight``."""

    def __init__(self, config: WaveGlowConfig, channels: int) -> None:
        super().__init__()
        c, taps, layers = config.wn.n_channels, config.wn.kernel_size, config.wn.n_layers
        half, bands = channels // 2, config.n_mel_channels * config.n_group

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape))

        self.mixing = parameter(channels, channels)  # the inverse of convinv
        self.start_weight, self.start_bias = parameter(half, c), parameter(c)
        self.cond_weight = parameter(bands, layers * 2 * c)
        self.cond_bias = parameter(layers * 2 * c)
        self.in_weight, self.in_bias = parameter(layers, taps, c, 2 * c), parameter(layers, 2 * c)
        self.res_weight, self.res_bias = parameter(layers - 1, c, c), parameter(layers - 1, c)
        self.skip_weight, self.skip_bias = parameter(layers, c, c), parameter(layers, c)
        self.end_weight, self.end_bias = parameter(c, 2 * half), parameter(2 * half)

    def folded(self) -> tuple[Tensor, Tensor, Tensor]:
        """The conditioning's whole bias [2CL], ``end`` of each skip [L, C, E] and its bias [E]."""
        bias = self.cond_bias + self.in_bias.flatten()
        fold = self.skip_weight @ self.end_weight
        return bias, fold, self.end_bias + self.skip_bias.sum(0) @ self.end_weight

    def forward(self, kept: Tensor, cond: Tensor) -> Tensor:
        """``b`` and ``log_s`` [B, T, E] from ``kept`` [B, T, half] and ``cond`` [B, T, bands]."""
        bias, fold, out = self.folded()
        conditioning = (cond @ self.cond_weight + bias).chunk(len(self.in_weight), dim=-1)
        x, last = kept @ self.start_weight + self.start_bias, len(self.in_weight) - 1
        for i, weight in enumerate(self.in_weight):
            res = None if i == last else self.res_weight[i]
            res_bias = None if i == last else self.res_bias[i]
            x, part = layer(x, conditioning[i], weight, res, res_bias, fold[i], 2**i)
            out = out + part
        return out
