"""The WN with bfloat16 products, for processors that multiply them faster than fp32 (AMX).

A product sums in fp32 and is rounded to bfloat16, also where it is a gradient; ``b``, ``log_s``,
the coupling, the 1x1 products and ``start`` stay in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from fastglow.config import WaveGlowConfig
from fastglow.training.flow import FlowParameters

HALF = torch.bfloat16


def _beside(x: Tensor, taps: int, dilation: int) -> Tensor:
    """Each step beside its neighbours: [B, T, C] to [B * T, taps * C]."""
    reach, steps = taps // 2 * dilation, x.shape[1]
    padded = functional.pad(x, (0, 0, reach, reach))
    shifted = [padded[:, j * dilation :][:, :steps] for j in range(taps)]
    return torch.cat(shifted, dim=2).flatten(0, 1)


def _gathered(g: Tensor, taps: int, dilation: int) -> Tensor:
    """The gradient of :func:`_beside`: [B, T, taps * C] to [B * T, C]."""
    reach, (batch, steps, width) = taps // 2 * dilation, g.shape
    sums = g.new_zeros(batch, steps + 2 * reach, width // taps)
    for j, part in enumerate(g.chunk(taps, dim=2)):
        sums[:, j * dilation :][:, :steps] += part
    return sums[:, reach : reach + steps].flatten(0, 1)


def _column_sums(x: Tensor) -> Tensor:
    """[n, m] to [m], as a product: a plain sum in fp32 takes seven times as long."""
    ones = x.new_ones(16, x.shape[0])
    return (ones @ x)[0].float()


class _WN(torch.autograd.Function):
    """One WN: from the kept channels to ``b`` and ``log_s`` without the final bias."""

    @staticmethod
    def forward(
        ctx: Any, kept: Tensor, cond: Tensor, start: Tensor, start_bias: Tensor,
        cond_weight: Tensor, cond_bias: Tensor, weight: Tensor, res: Tensor, res_bias: Tensor,
        fold: Tensor,
    ) -> Tensor:  # fmt: skip
        (batch, steps, _), (layers, taps, c, c2) = kept.shape, weight.shape
        inner = weight.to(HALF).reshape(layers, taps * c, c2)
        onward, onward_bias = res.to(HALF), res_bias.to(HALF)
        bands, bands_bias = cond_weight.to(HALF), cond_bias.to(HALF)
        x = torch.addmm(start_bias, kept.flatten(0, 1), start).to(HALF)
        out = torch.zeros(x.shape[0], fold.shape[2])
        streams, gates = [], []
        for i in range(layers):
            columns = slice(i * c2, (i + 1) * c2)
            given = torch.addmm(bands_bias[columns], cond, bands[:, columns])
            beside = _beside(x.view(batch, steps, c), taps, 2**i)
            t, s = torch.addmm(given, beside, inner[i]).chunk(2, dim=1)
            t, s = torch.tanh(t), torch.sigmoid(s)
            acts = t * s
            out.addmm_(acts.float(), fold[i])
            streams.append(x)
            gates += [t, s, acts]
            if i < layers - 1:
                x = torch.addmm(onward_bias[i], acts, onward[i]).add_(x)
        ctx.save_for_backward(kept, cond, start, bands, inner, onward, fold, *streams, *gates)
        ctx.taps = taps
        return out.view(batch, steps, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        kept, cond, start, bands, inner, onward, fold, *saved = ctx.saved_tensors
        (batch, steps, _), (layers, c, _), taps = kept.shape, fold.shape, ctx.taps
        streams, gates = saved[:layers], saved[layers:]
        g = g.flatten(0, 1)
        g_half, fold_half = g.to(HALF), fold.to(HALF)
        d_inner = torch.empty(inner.shape)
        d_onward, d_onward_bias = torch.empty(onward.shape), torch.empty(onward.shape[:2])
        d_fold = torch.empty(fold.shape)
        d_bands, d_bands_bias = torch.empty(bands.shape), torch.empty(bands.shape[1])
        d_cond = torch.zeros_like(cond) if ctx.needs_input_grad[1] else None
        dx = torch.zeros_like(streams[0])
        for i in reversed(range(layers)):
            t, s, acts = gates[3 * i : 3 * i + 3]
            columns = slice(i * 2 * c, (i + 1) * 2 * c)
            d_fold[i] = acts.T @ g_half
            d_acts = g_half @ fold_half[i].T
            if i < layers - 1:
                d_onward[i], d_onward_bias[i] = acts.T @ dx, _column_sums(dx)
                d_acts = torch.addmm(d_acts, dx, onward[i].T)
            by_sigmoid = d_acts.mul_(s)
            by_both = by_sigmoid * t
            d_gates = torch.cat(
                (
                    torch.addcmul(by_sigmoid, by_both, t, value=-1),  # d s (1 - t^2)
                    torch.addcmul(by_both, by_both, s, value=-1),  # d s t (1 - s)
                ),
                dim=1,
            )
            beside = _beside(streams[i].view(batch, steps, c), taps, 2**i)
            d_inner[i] = beside.T @ d_gates
            d_bands[:, columns], d_bands_bias[columns] = cond.T @ d_gates, _column_sums(d_gates)
            if d_cond is not None:
                d_cond.addmm_(d_gates, bands[:, columns].T)
            d_beside = (d_gates @ inner[i].T).view(batch, steps, -1)
            dx = _gathered(d_beside, taps, 2**i).add_(dx)
        first = dx.float()
        return (
            (first @ start.T).view(kept.shape), d_cond, kept.flatten(0, 1).T @ first, first.sum(0),
            d_bands, d_bands_bias, d_inner.view(layers, taps, c, -1), d_onward, d_onward_bias,
            d_fold,
        )  # fmt: skip


def couplings(
    config: WaveGlowConfig, flows: Sequence[FlowParameters], frames: Tensor, matrix: Tensor,
    bias: Tensor,
) -> list[Callable[[Tensor], Tensor]]:  # fmt: skip
    """For each flow, the function from the kept channels [B, T, half] to [B, T, 2 * half].

    Args:
        config: Hyperparameters.
        flows: Flow 0 first.
        frames: [B, frames, taps * n_mel], each mel frame beside its predecessors.
        matrix: [taps * n_mel, phases * n_mel * n_group], the upsampling.
        bias: [n_mel * n_group], its bias.
    """
    upsampled = frames.to(HALF).flatten(0, 1) @ matrix.to(HALF)
    cond = upsampled.view(-1, config.n_mel_channels * config.n_group) + bias.to(HALF)

    def coupling(p: FlowParameters, kept: Tensor) -> Tensor:
        cond_bias, fold, out_bias = p.folded()
        out: Tensor = _WN.apply(  # type: ignore[no-untyped-call]
            kept, cond, p.start_weight, p.start_bias, p.cond_weight, cond_bias, p.in_weight,
            p.res_weight, p.res_bias, fold,
        )  # fmt: skip
        return out + out_bias

    return [partial(coupling, flow) for flow in flows]
