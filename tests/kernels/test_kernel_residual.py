"""The residual kernel against plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from kernel_oracle import TINY, Target, check, guarded

from fastglow.kernels.residual import reference_residual, residual

# P, N, C, O, W (0: not layer 0), first, last
CASES = [
    (1, 1, 64, 8, 64, True, False),
    (2, 7, 64, 8, 0, False, False),
    (4, 63, 128, 8, 128, True, False),
    (1, 130, 64, 24, 0, False, False),
    (2, 63, 256, 8, 0, False, False),
    (2, 130, 64, 8, 0, False, True),
    (1, 7, 64, 16, 64, True, True),
    (1, 63, 192, 8, 0, False, False),
]
ON_GPU = [(32, 860, 256, 8, 0, False, False), (32, 86, 512, 8, 0, False, False)]


def compare(case: tuple[int, ...], target: Target) -> None:
    phases, places, channels, rows, width, first, last = case
    acts = target.stored(torch.rand(phases, places, channels) * 2 - 1)
    x = target.stored(torch.randn(phases, places, width or channels))
    weight = target.stored(torch.randn(channels, channels) * channels**-0.5)
    start = target.stored(torch.randn(channels, width) * width**-0.5) if width else None
    output = target.stored(torch.randn(rows, channels) * channels**-0.5)
    bias = target.floats(channels)
    mask = guarded((torch.rand(places) > 0.3).float().to(target.device))
    x_next = target.empty(phases, places, channels)
    before = torch.randn(1, phases, rows, places).to(target.device)
    out = guarded(torch.full_like(before, torch.nan) if first else before)
    residual(
        acts, x, weight, bias, output, mask, x_next, out, start=start, first=bool(first),
        last=bool(last), products=target.products,  # type: ignore[arg-type]
    )  # fmt: skip

    def reference(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        seen = (lambda t: t) if dtype == torch.float64 else target.operand
        stream = x if start is None else seen(x)
        stem = None if start is None else seen(start)
        operands = seen(acts), stream, seen(weight), bias, seen(output), mask, stem, dtype
        following, share = reference_residual(*operands)
        return following, share if first else share + before[0].to(dtype)

    (exact, share), (same, same_share) = reference(torch.float64), reference(torch.float32)
    check(out[0], share, same_share, TINY["tf32" if target.products == "tf32" else "fp32"])
    if last:
        assert x_next.isnan().all()
    else:
        check(x_next, exact, target.result(same), TINY[target.products])
        assert (x_next[:, mask == 0] == 0).all()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_float64(case: tuple[int, ...], target: Target) -> None:
    compare(case, target)


@pytest.mark.parametrize("case", ON_GPU, ids=str)
def test_sizes_of_real_models(case: tuple[int, ...], gpu_target: Target) -> None:
    compare(case, gpu_target)
