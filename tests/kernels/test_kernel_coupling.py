"""The coupling kernels against plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from kernel_oracle import Target, check, check_guards, guarded

from fastglow.kernels.coupling import (
    coupling,
    prepare,
    reference_coupling,
    reference_given,
    reference_moved,
)

# P, N, G, n, swapped, next n, next swapped, R, W
CASES = [
    (1, 1, 2, 2, False, 2, True, 1, 64),
    (2, 7, 8, 4, False, 6, False, 1, 64),
    (4, 63, 8, 8, True, 8, False, 2, 64),
    (1, 130, 10, 6, True, 8, True, 4, 64),
    (2, 130, 8, 8, False, 0, False, 1, 64),
    (1, 63, 48, 44, False, 48, True, 1, 128),
]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # between utterances
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_float64(case: tuple[int, ...], target: Target) -> None:
    phases, places, group, channels, swapped, following, next_swapped, partials, width = case
    rows = -(-channels // 8) * 8
    out = target.floats(partials, phases, rows, places) * 0.3
    bias = target.floats(channels)
    inverse = guarded(torch.linalg.qr(torch.randn(channels, channels))[0].to(target.device))
    mask = guarded((torch.rand(places) > 0.3).float().to(target.device))
    out[..., mask == 0] = torch.inf  # what a layer left between utterances does not matter
    before = target.floats(phases, group, places)
    planes = guarded(before)
    given = target.empty(phases, places, width)
    flow = {"channels": channels, "swapped": bool(swapped)}
    coupling(
        out, bias, inverse, planes, mask, given, **flow, next_channels=following,
        next_swapped=bool(next_swapped), products=target.products,  # type: ignore[arg-type]
    )  # fmt: skip
    quiet = torch.where(mask > 0, out, 0.0)
    exact, same = (
        reference_coupling(quiet, bias, inverse, before, mask, **flow, dtype=t)
        for t in (torch.float64, torch.float32)
    )
    check(planes, exact, same, 1e-6)
    assert torch.equal(planes[:, : group - channels], before[:, : group - channels])
    assert (planes[:, group - channels :, mask == 0] == 0).all()
    if following:
        check_guards(given)
        flow = {"channels": following, "swapped": bool(next_swapped)}
        assert torch.equal(given, reference_given(planes, mask, width, target.products, **flow))
        prepared = target.empty(phases, places, width)
        prepare(planes, mask, prepared, **flow, products=target.products)  # type: ignore[arg-type]
        check_guards(prepared)
        assert torch.equal(prepared, given)
    else:
        assert given.isnan().all()


@pytest.mark.parametrize("shift", [0, 3, 8])
def test_into_other_planes(shift: int, target: Target) -> None:
    """A stream's: what comes out goes to other planes, some places later, behind older ones."""
    phases, places, group, channels, kept = 2, 70, 8, 6, 16
    out = target.floats(1, phases, 8, places) * 0.3
    bias = target.floats(channels)
    inverse = guarded(torch.linalg.qr(torch.randn(channels, channels))[0].to(target.device))
    planes, before = (target.floats(phases, group, places) for _ in range(2))
    mask = torch.ones(places, device=target.device)  # of the places of ``after``
    mask[60:] = 0
    given, after, source = target.empty(phases, places, 64), guarded(before), planes.clone()
    flow = {"channels": channels, "swapped": False}
    coupling(
        out, bias, inverse, planes, guarded(mask), given, **flow, next_channels=8,
        next_swapped=False, products=target.products, after=after, shift=shift, kept=kept,
    )  # fmt: skip
    assert torch.equal(planes, source)
    every = torch.ones_like(mask)
    exact, same = (
        reference_moved(
            reference_coupling(out, bias, inverse, source, every, **flow, dtype=t),
            before.to(t),
            shift=shift,
            kept=kept,
        )
        for t in (torch.float64, torch.float32)
    )
    for values in (exact, same):
        values[:, group - channels :, 60:] = 0
    check(after, exact, same, 1e-6)
    assert torch.equal(after[..., :kept], before[..., :kept])
    moved = source[:, : group - channels, kept - shift : places - shift]
    assert torch.equal(after[:, : group - channels, kept:], moved)
    check_guards(given)
    flow = {"channels": 8, "swapped": False}
    assert torch.equal(given, reference_given(after, mask, 64, target.products, **flow))


def test_given_is_as_good_as_float32() -> None:
    """[high | low | high] times [w_high | w_high | w_low] is nearly the product of the values."""
    planes, mask = torch.randn(2, 8, 40), torch.ones(40)
    given = reference_given(planes, mask, 64, "fp16", channels=8, swapped=False).double()
    weight, bias = torch.randn(16, 4), torch.randn(16)
    high, bias_high = weight.half().float(), bias.half().float()
    low, bias_low = (weight - high).half().float(), (bias - bias_high).half().float()
    columns = torch.cat([high, high, low, bias_high[:, None], bias_low[:, None]], 1)
    exact = planes[:, :4].transpose(1, 2).double() @ weight.double().T + bias.double()
    found = given[..., :14] @ columns.double().T
    assert float((found - exact).abs().max()) < 4e-6
