# mypy: ignore-errors
"""The gate of a WN layer: dilated taps, mel window, bias, tanh * sigmoid, in one launch.

acts = tanh(g_t) * sigmoid(g_s), g = weight . taps of x + cond[p] . mel window + bias.

It is a matrix product of [P*N] places by 2C gate rows with K = taps*X + mel columns, whose left
operand is never stored: the rows of a tap are the same rows of another phase, and the mel window
of a place is a run of the mel buffer itself. For C=256, 10 s (P=32, N=860): 2*27520*512*1088 =
30.7 GFLOP, at 742 TFLOP/s 41 us; 28 MB of streams and 11 MB of weights, 13 us at 3 TB/s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastglow.kernels.common import DOT, ON_CPU, Products, capability, gated, shared_memory, stored


def reference_gate(
    x: Tensor,
    weight: Tensor,
    cond: Tensor,
    mel: Tensor,
    mel_strides: tuple[int, int],
    bias: Tensor,
    dilation: int,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """What :func:`gate` computes, in plain PyTorch.

    Args:
        x: [P, N, X].
        weight: [2C, taps * X], rows in groups of 8 tanh and 8 sigmoid channels.
        cond: [P or 1, 2C, K], rows likewise.
        mel: Flat buffer; the window of place n in phase p begins at p * phase + n * row.
        mel_strides: (phase, row).
        bias: [2C] float32.
        dilation: Steps between taps.
        dtype: Of the arithmetic and of the result.

    Returns:
        [P, N, C] in ``dtype``.
    """
    phases, places, inputs = x.shape
    taps = weight.shape[1] // inputs
    kernels = weight.to(dtype).view(-1, taps, inputs)
    windows = mel.to(dtype).as_strided((phases, places, cond.shape[2]), (*mel_strides, 1))
    g = torch.zeros(phases, places, weight.shape[0], dtype=dtype, device=x.device)
    for j in range(taps):
        operand = shifted(x.to(dtype), (j - taps // 2) * dilation)
        g += operand @ kernels[:, j].T
    g += windows @ cond.to(dtype).transpose(1, 2)
    g += bias.to(dtype)
    pairs = g.view(phases, places, -1, 2, 8)
    out = torch.tanh(pairs[..., 0, :]) * torch.sigmoid(pairs[..., 1, :])
    return out.reshape(phases, places, -1)


def shifted(x: Tensor, offset: int) -> Tensor:
    """The stream [P, N, X] ``offset`` steps later, zero outside the axis."""
    phases, places, _ = x.shape
    out = torch.zeros_like(x)
    for p in range(phases):
        move, plane = divmod(p + offset, phases)
        first, last = max(0, -move), min(places, places - move)
        if first < last:
            out[p, first:last] = x[plane, first + move : last + move]
    return out


@triton.jit(do_not_specialize=["N", "dilation", "lift"])
def gate_kernel(
    x, weight, cond, mel, bias, acts, N, dilation, lift,
    P: tl.constexpr, C: tl.constexpr, X: tl.constexpr, TAPS: tl.constexpr, K: tl.constexpr,
    COND_PHASES: tl.constexpr, MEL_PHASE, MEL_ROW: tl.constexpr,
    BM: tl.constexpr, BG: tl.constexpr, BK: tl.constexpr,
    PRECISION: tl.constexpr, APPROXIMATE: tl.constexpr, TF32: tl.constexpr,
):  # fmt: skip
    """One tile: BM places of one phase by BG gate rows."""
    BLOCKS: tl.constexpr = 2 * C // BG
    TAP_STEPS: tl.constexpr = TAPS * (X // BK)
    tile = tl.program_id(0)
    tiles = tl.cdiv(N, BM) * BLOCKS
    p, at = tile // tiles, tile % tiles
    begin = at // BLOCKS * BM
    places = begin + tl.arange(0, BM)
    rows = at % BLOCKS * BG + tl.arange(0, BG)
    k = tl.arange(0, BK)
    mel += p.to(tl.int64) * MEL_PHASE
    cond += (p % COND_PHASES).to(tl.int64) * (2 * C * K)
    acc = tl.zeros((BM, BG), tl.float32)
    for i in range(TAP_STEPS + K // BK):  # one loop, so that the pipeline fills once
        tap = i < TAP_STEPS
        step = p + (i // (X // BK) - TAPS // 2) * dilation + lift * P
        source = places + tl.where(tap, step // P - lift, 0)
        inside = (source >= 0) & (source < N)
        stream = x + (step % P).to(tl.int64) * N * X + i % (X // BK) * BK
        a_at = tl.where(tap, stream, mel + (i - TAP_STEPS) * BK)
        b_at = tl.where(tap, weight + i * BK, cond + (i - TAP_STEPS) * BK)
        a_at += source[:, None] * tl.where(tap, X, MEL_ROW) + k[None, :]
        b_at += rows[None, :] * tl.where(tap, TAPS * X, K) + k[:, None]
        a = tl.load(a_at, mask=inside[:, None], other=0.0)
        acc = tl.dot(a, tl.load(b_at), acc, input_precision=PRECISION)
    acc += tl.load(bias + rows)[None, :]
    t, s = tl.split(acc.reshape(BM, BG // 16, 2, 8).permute(0, 1, 3, 2))
    out = stored(gated(t, s, APPROXIMATE), TF32).reshape(BM, BG // 2)
    channels = at % BLOCKS * (BG // 2) + tl.arange(0, BG // 2)
    target = acts + p.to(tl.int64) * N * C + places[:, None] * C + channels[None, :]
    tl.store(target, out.to(acts.dtype.element_ty), mask=(places < N)[:, None])


@dataclass(frozen=True, slots=True)
class Tile:
    """A launch configuration; the bits of the result do not depend on it."""

    places: int
    rows: int
    warps: int
    stages: int


def tile_of(tiles: Callable[[int, int], int], products: Products, capability: int) -> Tile:
    """The largest tile of which there are enough to fill a device.

    Register and shared memory counts are those of Triton 3.6: see tests/kernels/test_compile.py.

    Args:
        tiles: The number of tiles of so many places and rows; 0 if the rows do not divide.
        products: Of the gate.
        capability: Of the device.
    """
    if capability == ON_CPU:  # numpy's products depend on the shape: one shape only
        return Tile(64, 128, 4, 1)
    roomy = shared_memory(capability) > 160 * 1024
    if products == "fp32":  # the parts of three products at once: 3 times the registers
        wide = capability >= 90 and roomy and tiles(128, 128) >= 256
        return Tile(128, 128, 8, 3) if wide else Tile(64, 64, 4, 3)
    if roomy and tiles(128, 256) >= 256:
        return Tile(128, 256, 8, 3)
    if tiles(128, 128) >= 256:
        return Tile(128, 128, 8, 3)
    return Tile(64, 128, 4, 3) if tiles(64, 128) >= 128 else Tile(64, 64, 4, 4)


def options(
    x: tuple[int, int, int],
    weight: tuple[int, int],
    cond: tuple[int, int, int],
    mel_row: int,
    products: Products,
    capability: int,
) -> dict[str, object]:
    """The compile-time arguments of :func:`gate_kernel` for these shapes."""
    phases, places, inputs = x
    rows = weight[0]
    depth = 64 if products in ("fp16", "bf16") or capability == ON_CPU else 32

    def tiles(height: int, width: int) -> int:
        return 0 if rows % width else phases * triton.cdiv(places, height) * (rows // width)

    tile = tile_of(tiles, products, capability)
    return {
        "P": phases,
        "C": rows // 2,
        "X": inputs,
        "TAPS": weight[1] // inputs,
        "K": cond[2],
        "COND_PHASES": cond[0],
        "MEL_ROW": mel_row,
        "BM": tile.places,
        "BG": tile.rows,
        "BK": depth,
        "PRECISION": DOT[products],
        "APPROXIMATE": products in ("fp16", "bf16") and capability != ON_CPU,
        "TF32": products == "tf32",
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def gate(
    x: Tensor,
    weight: Tensor,
    cond: Tensor,
    mel: Tensor,
    mel_strides: tuple[int, int],
    bias: Tensor,
    dilation: int,
    acts: Tensor,
    *,
    products: Products,
) -> None:
    """Write ``acts`` [P, N, C]; the other arguments are those of :func:`reference_gate`."""
    config = options(
        tuple(x.shape), tuple(weight.shape), tuple(cond.shape), mel_strides[1], products,
        capability(x),
    )  # fmt: skip
    phases, places, _ = x.shape
    reach = config["TAPS"] // 2 * dilation
    blocks = weight.shape[0] // config["BG"]
    gate_kernel[(phases * triton.cdiv(places, config["BM"]) * blocks,)](
        x, weight, cond, mel, bias, acts, places, dilation, triton.cdiv(reach, phases),
        MEL_PHASE=mel_strides[0], **config,
    )  # fmt: skip
