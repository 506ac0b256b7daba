"""The WN and its neighbours as autograd functions over the Triton kernels (CUDA only).

Products run in fp16 forward and bf16 backward with fp32 sums; ``b``, ``log_s``, the coupling and
the 1x1 products stay in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from fastglow.config import WaveGlowConfig
from fastglow.training import wn_launch
from fastglow.training.flow import FlowParameters

FORWARD, BACKWARD = torch.float16, torch.bfloat16
E = 16  # output columns of a layer, padded from at most 16 (tensor cores need 16)
# Bound of what enters a WN, within fp16: latents of a network trained through the inverse alone
# reach 1e8 on real speech. So far out the gates are saturated with or without it.
LARGEST = 3e4
_SPLIT = 256  # rows of a partial sum in tall_product


class _TallProduct(torch.autograd.Function):
    """x @ w for many rows and few columns, whose weight gradient is summed in two stages.

    A plain product would reduce 10^5 rows in one block.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return g @ w.T, _tall_gradient(x, g)


def _tall_gradient(x: Tensor, g: Tensor) -> Tensor:
    x, g = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    if x.shape[0] % _SPLIT:
        return x.T @ g
    parts = x.reshape(-1, _SPLIT, x.shape[1]).transpose(1, 2) @ g.reshape(-1, _SPLIT, g.shape[1])
    return parts.sum(0)


def tall_product(x: Tensor, w: Tensor) -> Tensor:
    """The fp32 product of x [..., n] and w [n, m]."""
    out: Tensor = _TallProduct.apply(x, w)  # type: ignore[no-untyped-call]
    return out


class _Upsample(torch.autograd.Function):
    """The squeezed, upsampled mel twice: bf16 carries the gradient, fp16 the forward values."""

    @staticmethod
    def forward(
        ctx: Any, frames: Tensor, matrix: Tensor, bias: Tensor, width: int
    ) -> tuple[Tensor, Tensor]:
        forward = (frames.to(FORWARD) @ matrix.to(FORWARD)).reshape(-1, width) + bias.to(FORWARD)
        ctx.save_for_backward(frames)
        backward = forward.to(BACKWARD, copy=True)
        ctx.mark_non_differentiable(forward)
        return backward, forward

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[None, Tensor, Tensor, None]:
        (frames,) = ctx.saved_tensors
        wide = g.reshape(frames.shape[0], -1)
        dmatrix = frames.to(BACKWARD).T @ wide
        return None, dmatrix.float(), g.sum(0, dtype=torch.float32), None


class _WN(torch.autograd.Function):
    """One WN: from the kept channels to ``b`` and ``log_s`` without the final bias."""

    @staticmethod
    def forward(
        ctx: Any, kept: Tensor, cond_b: Tensor, cond_f: Tensor, steps: int, start: Tensor,
        start_bias: Tensor, cond_weight: Tensor, cond_bias: Tensor, weight: Tensor, res: Tensor,
        res_bias: Tensor, fold: Tensor,
    ) -> Tensor:  # fmt: skip
        n, (layers, _, c, c2) = kept.shape[0], weight.shape
        x = torch.empty((layers, n, c), dtype=FORWARD, device=kept.device)
        x[0] = torch.addmm(start_bias, kept, start).clamp_(-LARGEST, LARGEST)
        cond = torch.addmm(cond_bias.to(FORWARD), cond_f, cond_weight.to(FORWARD))
        w, r, f = weight.to(FORWARD), res.to(FORWARD), fold.to(FORWARD)
        out = torch.empty((n, E), dtype=torch.float32, device=kept.device)
        for i in range(layers):
            last = i == layers - 1
            wn_launch.layer_forward(
                x[i], cond[:, i * c2 : (i + 1) * c2], w[i], None if last else r[i],
                None if last else res_bias[i], f[i], None if last else x[i + 1], out, steps,
                2**i, i == 0,
            )  # fmt: skip
        ctx.save_for_backward(kept, cond_b, start, cond_weight, weight, w, res, fold, x, cond)
        ctx.steps = steps
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        kept, cond_b, start, cond_weight, weight, w, res, fold, x, cond = ctx.saved_tensors
        layers, n, c = x.shape
        taps, c2 = weight.shape[1], 2 * c
        w_t = weight.transpose(2, 3).to(BACKWARD).contiguous()
        r_t = res.transpose(1, 2).to(BACKWARD).contiguous()
        f_t = fold.transpose(1, 2).to(BACKWARD).contiguous()
        dout = g.to(BACKWARD).contiguous()
        dgates = torch.empty((n, layers * c2), dtype=BACKWARD, device=g.device)
        acts = torch.empty((n, layers * c), dtype=BACKWARD, device=g.device)
        dx = torch.empty((layers, n, c), dtype=BACKWARD, device=g.device)
        for i in reversed(range(layers)):
            last = i == layers - 1
            wn_launch.layer_backward(
                x[i], cond[:, i * c2 : (i + 1) * c2], w[i], w_t[i], None if last else r_t[i],
                f_t[i], None if last else dx[i + 1], dout, dgates[:, i * c2 : (i + 1) * c2],
                acts[:, i * c : (i + 1) * c], dx[i], ctx.steps, 2**i,
            )  # fmt: skip
        dw, dbias, dres, dres_bias, dfold = wn_launch.weight_gradients(
            x, dgates, acts, dx, dout, ctx.steps, taps
        )
        dcond = dgates @ cond_weight.to(BACKWARD).T if ctx.needs_input_grad[1] else None
        dcond_weight = (cond_b.T @ dgates).float()
        first = dx[0].float()
        return (
            first @ start.T, dcond, None, None, _tall_gradient(kept, first), first.sum(0),
            dcond_weight, dbias.flatten(), dw, dres[:-1], dres_bias[:-1], dfold,
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
    steps = frames.shape[1] * config.phases
    cond_b, cond_f = _Upsample.apply(  # type: ignore[no-untyped-call]
        frames.flatten(0, 1), matrix, bias, config.n_mel_channels * config.n_group
    )

    def bind(p: FlowParameters) -> Callable[[Tensor], Tensor]:
        def coupling(kept: Tensor) -> Tensor:
            bias, fold, out_bias = p.folded()
            used = fold.shape[2]
            out: Tensor = _WN.apply(  # type: ignore[no-untyped-call]
                kept.reshape(-1, kept.shape[-1]), cond_b, cond_f, steps, p.start_weight,
                p.start_bias, p.cond_weight, bias, p.in_weight, p.res_weight, p.res_bias,
                functional.pad(fold, (0, E - used)),
            )  # fmt: skip
            return (out[:, :used] + out_bias).reshape(*kept.shape[:-1], used)

        return coupling

    return [bind(flow) for flow in flows]


__all__ = ["couplings", "tall_product"]
