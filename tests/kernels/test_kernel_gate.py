"""The gate kernel against plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from kernel_oracle import APPROXIMATION, TINY, Target, check
from torch import Tensor

from fastglow.kernels.gate import gate, reference_gate, shifted, tile_of

# P, N, C, X, taps, dilation, K, conditioning per phase
CASES = [
    (1, 1, 64, 64, 3, 1, 64, False),
    (1, 63, 64, 64, 3, 16, 64, False),
    (2, 7, 64, 64, 5, 4, 128, True),
    (4, 63, 128, 64, 3, 1, 64, True),
    (4, 130, 64, 64, 3, 64, 64, True),
    (2, 130, 64, 64, 1, 8, 64, True),
    (2, 63, 256, 256, 3, 2, 64, True),
    (4, 7, 64, 128, 5, 128, 64, True),
]
ON_GPU = [(32, 860, 256, 256, 3, 8, 320, True), (1, 27520, 64, 64, 3, 128, 640, False)]


def arguments(case: tuple[int, ...], target: Target) -> tuple[object, ...]:
    """Random inputs with pre-activations of size 1."""
    phases, places, channels, inputs, taps, dilation, width, per_phase = case
    rows, row = 2 * channels, 40 if per_phase else width
    cond = (phases if per_phase else 1, rows, width)
    mel = (places - 1) * row + width if per_phase else phases * places * width
    return (
        target.stored(torch.randn(phases, places, inputs)),
        target.stored(torch.randn(rows, taps * inputs) * (taps * inputs) ** -0.5),
        target.stored(torch.randn(cond) * width**-0.5),
        target.stored(torch.randn(mel)),
        (0 if per_phase else places * width, row),
        target.floats(rows),
        dilation,
    )


def same_precision(inputs: tuple[object, ...], target: Target) -> Tensor:
    """The reference in float32 on the operands that the product sees, rounded to storage."""
    x, weight, cond, mel, *rest = inputs
    operands = (target.operand(t) for t in (x, weight, cond, mel))  # type: ignore[arg-type]
    return target.result(reference_gate(*operands, *rest, torch.float32))  # type: ignore


def compare(case: tuple[int, ...], target: Target) -> None:
    inputs = arguments(case, target)
    acts = target.empty(case[0], case[1], case[2])
    gate(*inputs, acts, products=target.products)  # type: ignore[arg-type]
    approximate = target.device == "cuda" and target.products in ("fp16", "bf16")
    tiny = TINY[target.products] + (APPROXIMATION if approximate else 0.0)
    check(acts, reference_gate(*inputs), same_precision(inputs, target), tiny)  # type: ignore


@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_float64(case: tuple[int, ...], target: Target) -> None:
    compare(case, target)


@pytest.mark.parametrize("case", ON_GPU, ids=str)
def test_sizes_of_real_models(case: tuple[int, ...], gpu_target: Target) -> None:
    compare(case, gpu_target)


def test_shifted_moves_steps_between_phases() -> None:
    steps = torch.arange(1.0, 13.0)
    x = steps.view(4, 3).T.reshape(3, 4, 1).contiguous()  # step p + 3 n at [p, n]
    for offset in (-7, -3, -1, 0, 1, 2, 5, 20):
        expected = torch.zeros(12)
        for t in range(12):
            if 0 <= t + offset < 12:
                expected[t] = steps[t + offset]
        found = shifted(x, offset)[:, :, 0].T.reshape(-1)
        assert torch.equal(found, expected)


def test_the_tile_does_not_change_the_bits(gpu_target: Target) -> None:
    """Tiles differ between lengths; a place's result must not."""
    target = gpu_target
    x, weight, cond, mel, strides, bias, _ = arguments(
        (32, 2500, 256, 256, 3, 1, 320, True), target
    )
    whole = target.empty(32, 2500, 256)
    gate(x, weight, cond, mel, strides, bias, 1, whole, products=target.products)
    for places in (40, 300, 1000):
        part = target.empty(32, places, 256)
        begin = x[:, :places].contiguous()
        gate(begin, weight, cond, mel, strides, bias, 1, part, products=target.products)
        assert torch.equal(part[:, :-1], whole[:, : places - 1])


@pytest.mark.parametrize("capability", [80, 86, 89, 90, 100, 120])
def test_short_inputs_get_small_tiles(capability: int) -> None:
    def places(length: int, channels: int) -> int:
        def tiles(height: int, width: int) -> int:
            return 0 if 2 * channels % width else 32 * -(-length // height) * 2 * channels // width

        return tile_of(tiles, "fp16", capability).places

    assert places(86, 64) == 64
    assert places(6880, 256) == 128
