"""The 1x1 convolutions' matrices: their inverses and determinants, and how far they may go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def inverses(matrices: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """The inverses of a few small matrices and log|det| of each, differentiable.

    All are eliminated together in float64, without a look at the values: a CUDA graph can capture
    it, unlike torch.linalg, which waits for the device to say whether a matrix is singular. The
    inverse of a singular matrix is not finite.

    Args:
        matrices: Each [n, n], n from 1 on, of one dtype.

    Returns:
        The inverses, each [n, n], and log|det| of the matrices (not of their inverses) [F], both
        in the matrices' dtype.
    """
    *found, log_dets = _Inverses.apply(*matrices)  # type: ignore[no-untyped-call]
    return found, log_dets


class _Inverses(torch.autograd.Function):
    """W = M^-1 of each matrix, then log|det M|; the gradients come from W alone."""

    @staticmethod
    def forward(ctx: Any, *matrices: Tensor) -> tuple[Tensor, ...]:
        inverse, log_dets = _eliminate(_stack(matrices))
        ctx.save_for_backward(inverse)
        ctx.sizes = [len(m) for m in matrices]
        dtype = matrices[0].dtype
        parts = [w[:n, :n].to(dtype) for w, n in zip(inverse, ctx.sizes, strict=True)]
        return *parts, log_dets.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        *dw, dlog_dets = gradients
        w_t = ctx.saved_tensors[0].transpose(1, 2)
        dm = dlog_dets.double()[:, None, None] * w_t - w_t @ _stack(dw, 0.0) @ w_t
        return tuple(d[:n, :n].to(dlog_dets.dtype) for d, n in zip(dm, ctx.sizes, strict=True))


def _stack(matrices: Sequence[Tensor], diagonal: float = 1.0) -> Tensor:
    """Square matrices of several sizes as one batch in float64, continued by a diagonal."""
    size = max(len(m) for m in matrices)
    eye = diagonal * torch.eye(size, dtype=torch.float64, device=matrices[0].device)
    batch = eye.repeat(len(matrices), 1, 1)
    for place, matrix in zip(batch, matrices, strict=True):
        place[: len(matrix), : len(matrix)] = matrix
    return batch


def _eliminate(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss-Jordan with partial pivoting: inverses and log|det| of [F, n, n]."""
    count, n, _ = matrices.shape
    eye = torch.eye(n, dtype=matrices.dtype, device=matrices.device)
    rows = torch.cat([matrices, eye.expand(count, n, n)], dim=2)
    log_dets = matrices.new_zeros(count)
    for k in range(n):
        at = k + rows[:, k:, k].abs().argmax(dim=1)
        at = at[:, None, None].expand(count, 1, 2 * n)
        pivot_row = rows.gather(1, at)
        pivot = pivot_row[:, :, k : k + 1]
        log_dets = log_dets + pivot.abs().log().flatten()
        pivot_row = pivot_row / pivot
        rows = rows.scatter(1, at, rows[:, k : k + 1])  # the swap's other half
        rows = rows - rows[:, :, k : k + 1] * pivot_row
        rows[:, k] = pivot_row[:, 0]
    return rows[:, :, n:], log_dets


def limit_conditioning(matrix: Tensor, floor: float) -> Tensor:
    """The matrix with its singular values limited to [floor, 1 / floor], in float64 on the CPU.

    Without it the spectral losses teach the 1x1 convolutions to discard noise, until some have
    no usable inverse (a published weight of 2,700, latents of 10^8).
    """
    u, s, v = torch.linalg.svd(matrix.double().cpu())
    limited: Tensor = (u * s.clamp(floor, 1 / floor)) @ v
    return limited.to(matrix)
