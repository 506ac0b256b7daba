"""Muon: momentum whose every matrix is orthogonalised before it is applied."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrices, roughly: singular values go to 0.7-1.2.

    Args:
        matrices: [..., m, n].
        steps: Newton-Schulz iterations.

    Source:
        Jordan et al. 2024, Muon; the quintic iteration with its published coefficients.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.transpose(-1, -2) if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-12)
    if x.is_cuda:
        x = x.bfloat16()
    a, b, c = _COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.transpose(-1, -2) if tall else x).to(matrices.dtype)
    return result


def _gradient(p: Tensor) -> Tensor:
    return torch.zeros_like(p) if p.grad is None else p.grad


class Muon(torch.optim.Optimizer):
    """Muon for parameters that are (stacks of) matrices; CUDA graphs may capture its step.

    An update has the root mean square of Adam's (0.2 of the learning rate), so both can share a
    learning rate.

    Args:
        params: Parameters [..., m, n].
        lr: Learning rate; a tensor is read at each step.
        momentum: Of the averaged gradient (Nesterov's form).
        weight_decay: Decoupled.

    Source:
        Jordan et al. 2024; scale and decay: Liu et al. 2025 (Moonlight), section 2.2.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float | Tensor, momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter from its gradient, equal shapes in one batch."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            buckets: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for p in (p for p in group["params"] if p.grad is not None):
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
                self.state[p]["momentum"].lerp_(p.grad, 1 - momentum)
                buckets[(p.shape[-2], p.shape[-1])].append(p)
            for (m, n), members in buckets.items():
                directions = [
                    torch.lerp(_gradient(p), self.state[p]["momentum"], momentum).reshape(-1, m, n)
                    for p in members
                ]
                moved = orthogonalise(torch.cat(directions)) * (0.2 * max(m, n) ** 0.5)
                for p, update in zip(
                    members, moved.split([d.shape[0] for d in directions]), strict=True
                ):
                    p.mul_(1 - lr * group["weight_decay"])
                    p.sub_(lr * update.view_as(p))
