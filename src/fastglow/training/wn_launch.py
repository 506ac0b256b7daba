"""Launchers of the WN kernels: tensors in, one launch each, tensors written in place."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from fastglow.training import wn_kernels as kernels

ROWS = 128  # rows of a tile; wgmma needs 64 or more
REGISTERS = 128  # a thread's limit in the gate kernels: two blocks of 256 threads a processor
SPLITS = 16  # partial sums of a weight gradient, added in a fixed order


def layer_forward(
    x: Tensor,
    cond: Tensor,
    weight: Tensor,
    res: Tensor | None,
    res_bias: Tensor | None,
    fold: Tensor,
    x_next: Tensor | None,
    out: Tensor,
    steps: int,
    dilation: int,
    first: bool,
) -> None:
    """Launch one layer: writes ``x_next`` [N, C] unless it is None, adds to ``out`` [N, E] fp32.

    ``cond`` is the layer's [N, 2C] view of a wider row; rows are grouped in segments of ``steps``.
    """
    n, c = x.shape
    dummy = x if res is None else res
    kernels.forward[(triton.cdiv(n, ROWS),)](
        x,
        weight,
        cond,
        dummy,
        dummy if res_bias is None else res_bias,
        fold,
        x if x_next is None else x_next,
        out,
        n,
        steps,
        dilation,
        cond.stride(0),
        C=c,
        E=out.shape[1],
        TAPS=weight.shape[0],
        FIRST=first,
        LAST=x_next is None,
        ROWS=ROWS,
        num_warps=8,
        maxnreg=REGISTERS,
    )


def layer_backward(
    x: Tensor,
    cond: Tensor,
    weight: Tensor,
    weight_t: Tensor,
    res_t: Tensor | None,
    fold_t: Tensor,
    dx_next: Tensor | None,
    dout: Tensor,
    dgates: Tensor,
    acts: Tensor,
    dx: Tensor,
    steps: int,
    dilation: int,
) -> None:
    """Launch one layer's backward: writes ``dgates`` [N, 2C], ``acts`` [N, C] and ``dx`` [N, C].

    ``weight_t`` is [taps, 2C, C], ``res_t`` [C, C] and ``fold_t`` [E, C] in the gradient's type.
    """
    n, c = x.shape
    grid, last = (triton.cdiv(n, ROWS),), dx_next is None
    kernels.backward_gates[grid](
        x,
        weight,
        cond,
        fold_t if res_t is None else res_t,
        fold_t,
        dout if dx_next is None else dx_next,
        dout,
        dgates,
        acts,
        n,
        steps,
        dilation,
        cond.stride(0),
        acts.stride(0),
        C=c,
        E=dout.shape[1],
        TAPS=weight.shape[0],
        LAST=last,
        ROWS=ROWS,
        num_warps=8,
        maxnreg=REGISTERS,
    )
    kernels.backward_x[grid](
        dgates,
        weight_t,
        dout if dx_next is None else dx_next,
        dx,
        n,
        steps,
        dilation,
        dgates.stride(0),
        C=c,
        TAPS=weight.shape[0],
        LAST=last,
        ROWS=ROWS,
        num_warps=8,
    )


def weight_gradients(
    x: Tensor, dgates: Tensor, acts: Tensor, dx: Tensor, dout: Tensor, steps: int, taps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of every layer's weights at once.

    Args:
        x: [L, N, C] fp16, each layer's input.
        dgates: [N, L * 2C] bf16.
        acts: [N, L * C] bf16.
        dx: [L, N, C] bf16, gradients of ``x``.
        dout: [N, E] bf16.
        steps: Rows of a segment.
        taps: Kernel size.

    Returns:
        Of ``weight`` [L, taps, C, 2C], the gates' bias [L, 2C], ``res`` [L, C, C] and its bias
        [L, C] (both zero in the last layer), and ``fold`` [L, C, E]; in fp32.
    """
    layers, n, c = x.shape
    e = dout.shape[1]
    chunk = triton.cdiv(triton.cdiv(n, SPLITS), 64) * 64

    def partial(*shape: int) -> Tensor:
        return x.new_empty((SPLITS, layers, *shape), dtype=torch.float32)

    weight, bias = partial(taps, c, 2 * c), partial(2 * c)
    kernels.backward_weight[(SPLITS, taps, layers)](
        x, dgates, weight, bias, n, steps, dgates.stride(0), CHUNK=chunk, C=c, TAPS=taps, ROWS=64,
        num_warps=4,
    )  # fmt: skip
    res, res_bias, fold = partial(c, c), partial(c), partial(c, e)
    kernels.backward_outputs[(SPLITS, layers)](
        acts, dx, dout, res, fold, res_bias, n, acts.stride(0), CHUNK=chunk, C=c, E=e, ROWS=64,
        num_warps=4,
    )  # fmt: skip
    return weight.sum(0), bias.sum(0), res.sum(0), res_bias.sum(0), fold.sum(0)
