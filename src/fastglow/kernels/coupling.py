# mypy: ignore-errors
"""The end of a flow in float32: affine coupling, inverse 1x1 convolution, next flow's input.

Half precision here is what gives silence and NaN. For 10 s (27,520 steps) and n = 8: 64 bytes of
planes, 32 of ``out`` and 128 of ``given`` a step, 6 MB or 2 us at 3 TB/s.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from fastglow.kernels.common import Products, capability, narrowed, stored

PLACES = 64  # of a tile
EARLY_FROM = 90  # the capability from which a launch may start before the one before it ends


def reference_coupling(
    out: Tensor,
    output_bias: Tensor,
    inverse: Tensor,
    planes: Tensor,
    mask: Tensor,
    *,
    channels: int,
    swapped: bool,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """The planes after :func:`coupling`, in plain PyTorch.

    Args:
        out: [R, P, O, N] float32, partial sums of [b, log_s].
        output_bias: [n] float32.
        inverse: [n, n] float32.
        planes: [P, G, N] float32.
        mask: [N] float32, 1 inside utterances.
        channels: n.
        swapped: The second half conditions the first.
        dtype: Of the arithmetic and of the result.

    Returns:
        [P, G, N]; zero outside utterances in the flow's channels.
    """
    half, group = channels // 2, planes.shape[1]
    total = out[:, :, :channels].to(dtype).sum(0) + output_bias.to(dtype)[:, None]
    shift, log_scale = total[:, :half], total[:, half:]
    audio = planes[:, group - channels :].to(dtype).clone()
    changed = audio[:, :half] if swapped else audio[:, half:]
    changed.copy_((changed - shift) * torch.exp(-log_scale))
    after = planes.to(dtype).clone()
    after[:, group - channels :] = torch.where(mask > 0, inverse.to(dtype) @ audio, 0.0)
    return after


def reference_moved(planes: Tensor, after: Tensor, *, shift: int, kept: int) -> Tensor:
    """What :func:`coupling` leaves in ``after`` if what it computes in place is ``planes``.

    Args:
        planes: [P, G, N].
        after: [P, G, N], before.
        shift: Places that it moves to the right.
        kept: First places of ``after`` that stay as they are.
    """
    out = after.clone()
    out[..., kept:] = planes[..., kept - shift : planes.shape[2] - shift]
    return out


def reference_given(
    planes: Tensor, mask: Tensor, width: int, products: Products, *, channels: int, swapped: bool
) -> Tensor:
    """The next layer 0's input [P, N, width]: [high | low | high | 1 | 1 | 0...].

    Args:
        planes: [P, G, N] float32.
        mask: [N] float32.
        width: W.
        products: Precision whose storage type it has; ``low`` is what rounding to it left.
        channels: n of the flow that reads it.
        swapped: Its second half conditions its first.
    """
    half, group = channels // 2, planes.shape[1]
    first = group - channels + (half if swapped else 0)
    values = planes[:, first : first + half].transpose(1, 2)  # [P, N, h]
    high = narrowed(values, products)
    low, dtype = narrowed(values - high.float(), products), high.dtype
    given = torch.zeros(*values.shape[:2], width, dtype=dtype, device=planes.device)
    given[..., : 3 * half] = torch.cat([high, low, high], dim=-1)
    given[..., 3 * half : 3 * half + 2] = 1
    return torch.where(mask[:, None] > 0, given, torch.zeros((), dtype=dtype, device=mask.device))


@triton.jit
def _changed(audio, out, output_bias, row, stride, N, places, inside,
             R: tl.constexpr, HALF: tl.constexpr):  # fmt: skip
    """(value - b) * exp(-log_s) of one row of the changed half."""
    shift = tl.load(output_bias + row) + tl.zeros_like(places).to(tl.float32)
    scale = tl.load(output_bias + HALF + row) + tl.zeros_like(places).to(tl.float32)
    for r in tl.static_range(R):
        at = out + r * stride + row * N + places
        shift += tl.load(at, mask=inside, other=0.0)
        scale += tl.load(at + HALF * N, mask=inside, other=0.0)
    return (audio - shift) * tl.exp(-scale)


@triton.jit
def _write_given(planes, given, mask, N, places, inside,
                 W: tl.constexpr, FIRST: tl.constexpr, HALF: tl.constexpr,
                 TF32: tl.constexpr):  # fmt: skip
    """Slots of HALF planes from FIRST on, for the places of a tile of one phase."""
    s = tl.arange(0, W)
    held = (s < 3 * HALF)[None, :] & inside[:, None]
    at = planes + (FIRST + s % HALF)[None, :] * N + places[:, None]
    value = tl.load(at, mask=held, other=0.0)
    high = stored(value, TF32).to(given.dtype.element_ty)
    low = stored(value - high.to(tl.float32), TF32).to(given.dtype.element_ty)
    slot = tl.where((s // HALF == 1)[None, :], low, high)
    one = ((s >= 3 * HALF) & (s < 3 * HALF + 2))[None, :]
    slot = tl.where(one, 1.0, slot.to(tl.float32))
    real = tl.load(mask + places, mask=inside, other=0.0) > 0.0
    slot = tl.where(real[:, None], slot, 0.0).to(given.dtype.element_ty)
    tl.store(given + places[:, None] * W + s[None, :], slot, mask=inside[:, None])


@triton.jit(do_not_specialize=["N"])
def coupling_kernel(
    out, output_bias, inverse, planes, after, mask, given, N,
    G: tl.constexpr, O: tl.constexpr, R: tl.constexpr, W: tl.constexpr,  # noqa: E741
    CHANNELS: tl.constexpr, SWAPPED: tl.constexpr, ROWS: tl.constexpr,
    NEXT: tl.constexpr, NEXT_SWAPPED: tl.constexpr, SHIFT: tl.constexpr, KEPT: tl.constexpr,
    BN: tl.constexpr, EARLY: tl.constexpr, TF32: tl.constexpr,
):  # fmt: skip
    """BN places of one phase; ROWS is CHANNELS rounded up to a power of two.

    Place q of ``after`` is place q - SHIFT of ``planes``; the first KEPT stay as they are. With
    KEPT = 0 both are the same.

    EARLY: the layer after this one may start, and waits itself for what it needs of this; so does
    this for the layer before it.
    """
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    HALF: tl.constexpr = CHANNELS // 2
    p = tl.program_id(1).to(tl.int64)
    places = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = places < N
    fresh = inside & (places >= KEPT)
    source = places - SHIFT
    after += p * G * N
    audio = planes + p * G * N + (G - CHANNELS) * N
    partial = tl.num_programs(1).to(tl.int64) * O * N
    r = tl.arange(0, ROWS)
    acc = tl.zeros((ROWS, BN), tl.float32)
    for c in tl.static_range(CHANNELS):
        value = tl.load(audio + c * N + source, mask=fresh, other=0.0)
        row = c if SWAPPED else c - HALF
        if (row >= 0) & (row < HALF):
            value = _changed(value, out + p * O * N, output_bias, row, partial, N, source, fresh,
                             R, HALF)  # fmt: skip
        column = tl.load(inverse + r * CHANNELS + c, mask=r < CHANNELS, other=0.0)
        acc = tl.fma(column[:, None], value[None, :], acc)
    real = tl.load(mask + places, mask=inside, other=0.0) > 0.0
    tl.debug_barrier()  # all threads have read the planes
    keep = (r < CHANNELS)[:, None] & fresh[None, :]
    to = after + (G - CHANNELS + r)[:, None] * N + places[None, :]
    tl.store(to, tl.where(real[None, :], acc, 0.0), mask=keep)
    if KEPT > 0:
        for c in tl.static_range(G - CHANNELS):  # these wait for a later flow
            value = tl.load(planes + (p * G + c) * N + source, mask=fresh, other=0.0)
            tl.store(after + c * N + places, value, mask=fresh)
    if NEXT > 0:
        tl.debug_barrier()  # and written them
        FIRST: tl.constexpr = G - NEXT + (NEXT // 2 if NEXT_SWAPPED else 0)
        _write_given(after, given + p * N * W, mask, N, places, inside, W, FIRST, NEXT // 2,
                     TF32)  # fmt: skip


@triton.jit(do_not_specialize=["N"])
def prepare_kernel(planes, mask, given, N, G: tl.constexpr, W: tl.constexpr,
                   FIRST: tl.constexpr, HALF: tl.constexpr, TF32: tl.constexpr,
                   BN: tl.constexpr):  # fmt: skip
    """The first flow's input."""
    p = tl.program_id(1).to(tl.int64)
    places = tl.program_id(0) * BN + tl.arange(0, BN)
    _write_given(planes + p * G * N, given + p * N * W, mask, N, places, places < N, W, FIRST, HALF,
                 TF32)  # fmt: skip


def options(
    out: tuple[int, int, int, int], group: int, width: int, channels: int, swapped: bool,
    next_channels: int, next_swapped: bool, products: Products,
    architecture: int, *, shift: int = 0, kept: int = 0,
) -> dict[str, object]:  # fmt: skip
    """The compile-time arguments of :func:`coupling_kernel` for ``out`` [R, P, O, N]."""
    early = {"launch_pdl": True} if architecture >= EARLY_FROM else {}
    return {
        "G": group,
        "O": out[2],
        "R": out[0],
        "W": width,
        "CHANNELS": channels,
        "SWAPPED": swapped,
        "ROWS": triton.next_power_of_2(channels),
        "NEXT": next_channels,
        "NEXT_SWAPPED": next_swapped,
        "SHIFT": shift,
        "KEPT": kept,
        "BN": PLACES,
        "EARLY": bool(early),
        "TF32": products == "tf32",
        "num_warps": 2,
        **early,
    }


def coupling(
    out: Tensor,
    output_bias: Tensor,
    inverse: Tensor,
    planes: Tensor,
    mask: Tensor,
    given_next: Tensor,
    *,
    channels: int,
    swapped: bool,
    next_channels: int,
    next_swapped: bool,
    products: Products,
    after: Tensor | None = None,
    shift: int = 0,
    kept: int = 0,
) -> None:
    """Undo a flow's coupling and 1x1 convolution in ``planes``, and write ``given_next``.

    Args:
        out: [R, P, O, N] float32.
        output_bias: [n] float32.
        inverse: [n, n] float32.
        planes: [P, G, N] float32, changed in place in the last n channels.
        mask: [N] float32.
        given_next: [P, N, W], see :func:`reference_given`; not written if ``next_channels`` is 0.
        channels: n.
        swapped: The second half conditions the first.
        next_channels: n of the next flow, 0 after the last.
        next_swapped: Its second half conditions its first.
        products: Of the layer that reads ``given_next``.
        after: [P, G, N], where the result goes in place of ``planes``; the mask is of its places.
        shift: How many places later a place of ``planes`` stands there.
        kept: First places of it that stay as they are, at least ``shift`` and 1.
    """
    _, phases, _, places = out.shape
    config = options(
        tuple(out.shape), planes.shape[1], given_next.shape[2], channels, swapped, next_channels,
        next_swapped, products, capability(out), shift=shift, kept=kept,
    )  # fmt: skip
    coupling_kernel[(triton.cdiv(places, PLACES), phases)](
        out, output_bias, inverse, planes, planes if after is None else after, mask, given_next,
        places, **config,
    )  # fmt: skip


def prepare(
    planes: Tensor, mask: Tensor, given: Tensor, *, channels: int, swapped: bool, products: Products
) -> None:
    """Write ``given`` [P, N, W] of the first flow from its last ``channels`` planes."""
    phases, group, places = planes.shape
    first = group - channels + (channels // 2 if swapped else 0)
    prepare_kernel[(triton.cdiv(places, PLACES), phases)](
        planes, mask, given, places, G=group, W=given.shape[2], FIRST=first, HALF=channels // 2,
        TF32=products == "tf32", BN=PLACES, num_warps=2,
    )  # fmt: skip
