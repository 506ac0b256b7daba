# mypy: ignore-errors
"""The residual of a WN layer and its share of ``[b, log_s]``, in one launch.

x_next = mask * (x + weight . acts + bias), and out (+)= output . acts: two products of one read of
``acts``. After layer 0 the stream is ``start . given`` plus the residual, so ``start``'s output is
never stored by itself. For C=256, 10 s (27,520 steps): 42 MB of streams and 1.8 MB of ``out``,
15 us at 3 TB/s; 3.7 GFLOP, 5 us at 742 TFLOP/s.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastglow.kernels.common import DOT, ON_CPU, Products, capability, stored


def reference_residual(
    acts: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    output: Tensor,
    mask: Tensor,
    start: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """What :func:`residual` computes, in plain PyTorch.

    Args:
        acts: [P, N, C].
        x: [P, N, C], or with ``start`` the layer's input [P, N, W].
        weight: [C, C].
        bias: [C] float32.
        output: [O, C].
        mask: [N] float32, 1 inside utterances.
        start: [C, W] for layer 0.
        dtype: Of the arithmetic and of the results.

    Returns:
        The next stream [P, N, C] and this layer's share of ``out`` [P, O, N].
    """
    operand = acts.to(dtype)
    stream = x.to(dtype) if start is None else x.to(dtype) @ start.to(dtype).T
    following = stream + operand @ weight.to(dtype).T + bias.to(dtype)
    share = (operand @ output.to(dtype).T).transpose(1, 2)
    return following * mask.to(dtype)[:, None], share


@triton.jit(do_not_specialize=["N"])
def residual_kernel(
    acts, x, weight, start, bias, output, mask, x_next, out, N,
    C: tl.constexpr, W: tl.constexpr, O: tl.constexpr,  # noqa: E741
    FIRST: tl.constexpr, LAST: tl.constexpr,
    BM: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, BK: tl.constexpr,
    PRECISION: tl.constexpr, TF32: tl.constexpr,
):  # fmt: skip
    """One tile: BM places of one phase by BC channels, and the O output rows beside them.

    W is the width of layer 0's input, 0 for other layers.
    """
    BLOCKS: tl.constexpr = 1 if LAST else C // BC
    tile = tl.program_id(0)
    tiles = tl.cdiv(N, BM) * BLOCKS
    p, at = (tile // tiles).to(tl.int64), tile % tiles
    places = at // BLOCKS * BM + tl.arange(0, BM)
    inside = places < N
    channels = at % BLOCKS * BC + tl.arange(0, BC)
    k, o = tl.arange(0, BK), tl.arange(0, BO)
    share = tl.zeros((BM, BO), tl.float32)
    acc = tl.zeros((BM, BC), tl.float32)
    a_at = acts + p * N * C + places[:, None] * C + k[None, :]
    for i in range(0, C, BK):
        a = tl.load(a_at + i, mask=inside[:, None], other=0.0)
        v = tl.load(output + o[None, :] * C + k[:, None] + i, mask=(o < O)[None, :], other=0.0)
        share = tl.dot(a, v, share, input_precision=PRECISION)
        if not LAST:
            b = tl.load(weight + channels[None, :] * C + k[:, None] + i)
            acc = tl.dot(a, b, acc, input_precision=PRECISION)
    if not LAST:
        here = places[:, None] * C + channels[None, :]
        if W > 0:
            g_at = x + p * N * W + places[:, None] * W + k[None, :]
            for i in range(0, W, BK):
                a = tl.load(g_at + i, mask=inside[:, None], other=0.0)
                b = tl.load(start + channels[None, :] * W + k[:, None] + i)
                acc = tl.dot(a, b, acc, input_precision=PRECISION)
        else:
            stream = tl.load(x + p * N * C + here, mask=inside[:, None], other=0.0)
            acc += stream.to(tl.float32)
        acc += tl.load(bias + channels)[None, :]
        acc *= tl.load(mask + places, mask=inside, other=0.0)[:, None]
        target = x_next + p * N * C + here
        acc = stored(acc, TF32)
        tl.store(target, acc.to(x_next.dtype.element_ty), mask=inside[:, None])
    if at % BLOCKS == 0:
        keep = inside[:, None] & (o < O)[None, :]
        total = out + (p * O + o)[None, :] * N + places[:, None]
        if not FIRST:
            share += tl.load(total, mask=keep, other=0.0)
        tl.store(total, share, mask=keep)


def options(
    channels: int, rows: int, width: int, first: bool, last: bool, products: Products,
    capability: int,
) -> dict[str, object]:  # fmt: skip
    """The compile-time arguments of :func:`residual_kernel`.

    They do not depend on the length, and neither does the kind of instruction that Triton picks.
    Register and shared memory counts are those of Triton 3.6: see tests/kernels/test_compile.py.
    """
    half = products in ("fp16", "bf16")
    widest = 128 if half or (capability >= 90 and products == "tf32") else 64
    block = min(channels & -channels, widest)
    return {
        "C": channels,
        "W": width,
        "O": rows,
        "FIRST": first,
        "LAST": last,
        "BM": 64,
        "BC": block,
        "BO": triton.next_power_of_2(rows),
        "BK": 64 if half or capability == ON_CPU else 32,
        "PRECISION": DOT[products],
        "TF32": products == "tf32",
        "num_warps": 4 if last or block == 64 else 8,
        "num_stages": _stages(products, capability),
        "maxnreg": 128 if half and block > 64 and not last else None,  # two blocks a processor
    }


def _stages(products: Products, capability: int) -> int:
    """Depth of the pipeline: none where Triton 3.6 makes a wrong one.

    On Hopper it lets the next block overwrite what an asynchronous product still reads: fp16 and
    tf32 gave x wrong by 3e-3 to 3e-2 on an H100, differently each time. A single stage cost 7 % in
    fp16 and half in tf32 (beside other programs). The parts of fp32 pass through registers: right.
    """
    if capability < 90:
        return 2
    return 3 if products == "fp32" else 1


def residual(
    acts: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    output: Tensor,
    mask: Tensor,
    x_next: Tensor,
    out: Tensor,
    *,
    start: Tensor | None = None,
    first: bool,
    last: bool,
    products: Products,
) -> None:
    """Write ``x_next`` [P, N, C] unless ``last``, and ``out`` [1, P, O, N] float32.

    The other arguments are those of :func:`reference_residual`; ``first`` stores into ``out``,
    else it is added to. When ``last``, ``x``, ``weight``, ``bias`` and ``x_next`` are not touched.
    """
    phases, places, channels = acts.shape
    width = 0 if start is None else start.shape[1]
    config = options(channels, output.shape[0], width, first, last, products, capability(acts))
    blocks = 1 if last else channels // config["BC"]
    residual_kernel[(phases * triton.cdiv(places, config["BM"]) * blocks,)](
        acts, x, weight, weight if start is None else start, bias, output, mask, x_next, out,
        places, **config,
    )  # fmt: skip
