# mypy: ignore-errors
"""Audio-shaped noise into planes, planes into audio, and the mel into the rows of its windows.

The first two move [P*G, N] planes to or from rows of consecutive samples, a transposition: 8 bytes
a sample, 1.8 MB or 1 us for 10 s. Noise may be drawn here, with the integers of
:mod:`fastglow.noise` and its float64 arithmetic. All take their inputs by a request.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastglow import noise as source
from fastglow.kernels.common import Products, stored
from fastglow.kernels.request import (
    AUDIO,
    CALL,
    FLAG,
    FRAMES,
    MEL,
    NOISE,
    PIECE,
    ROW,
    SAMPLES,
    SEEDS,
    SIGMA,
    START,
    TARGET,
    WITHIN,
    floats,
    integers,
)

BLOCK = 32  # samples of a place, and places, of a tile
ROWS = 16  # of mel windows, of a tile


def reference_spread(
    noise: Tensor | None,
    seeds: list[int],
    sigma: float,
    start: int,
    within: Tensor,
    row: Tensor,
    piece: Tensor,
    planes: Tensor,
) -> Tensor:
    """What :func:`spread` writes [P, G, N], in plain PyTorch and numpy."""
    phases, group, places = planes.shape
    size = phases * group
    flat = torch.zeros(places, size)
    for n, at in enumerate(within.tolist()):
        if at < 0:
            continue
        if noise is not None:
            flat[n] = noise[row[n], at : at + size]
        else:
            drawn = source.normal(seeds[piece[n]], size, start + at)
            flat[n] = sigma * torch.from_numpy(drawn)
    return flat.T.reshape(phases, group, places)


def reference_collect(planes: Tensor, target: Tensor, audio: Tensor) -> tuple[Tensor, bool]:
    """The audio that :func:`collect` writes, and whether a value is not finite."""
    after, samples = audio.clone(), planes.shape[0] * planes.shape[1]
    finite = True
    for n, at in enumerate(target.tolist()):
        if at >= 0:
            values = planes[:, :, n].reshape(-1)
            after.view(-1)[at : at + samples] = values
            finite &= bool(torch.isfinite(values).all())
    return after, not finite


def reference_frames(
    mel: Tensor, within: Tensor, row: Tensor, size: int, before: int, out: Tensor, bands: int
) -> Tensor:
    """What :func:`frames` writes into ``out``, in plain PyTorch."""
    rows = torch.zeros(-(-out.numel() // bands), bands)
    for n, at in enumerate(within.tolist()):
        if at >= 0:
            rows[before + n, : mel.shape[1]] = mel[row[n], :, at // size]
    return rows.view(-1)[: out.numel()].to(out.dtype)


@triton.jit
def philox(low, high, k0, k1):
    """Philox 4x32-10 of counters (low, high, 0, 0): four uint32 of the counters' shape."""
    c0, c1 = low, high
    c2, c3 = tl.zeros_like(low), tl.zeros_like(low)
    for _ in tl.static_range(10):
        first, second = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        top, bottom = tl.umulhi(c0, 0xD2511F53), tl.umulhi(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = bottom ^ c1 ^ k0, second, top ^ c3 ^ k1, first
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def normal(seed, sample):
    """Standard normals: ``sample`` int64 indices under int64 seeds that broadcast to them."""
    counter = sample >> 2
    low, high = counter.to(tl.uint32), (counter >> 32).to(tl.uint32)
    b0, b1, b2, b3 = philox(low, high, seed.to(tl.uint32), (seed >> 32).to(tl.uint32))
    upper = (sample & 2) != 0
    u = (tl.where(upper, b2, b0).to(tl.float64) + 0.5) * 2.0**-32
    cosine = cosine_of_turn(tl.where(upper, b3, b1), (sample & 1).to(tl.uint32))
    return (tl.sqrt(-2.0 * tl.log(u)) * cosine).to(tl.float32)


@triton.jit
def cosine_of_turn(bits, odd):
    """cos(2 pi bits / 2**32), or where ``odd`` the sine, to 1e-9 in float64.

    Within an eighth of a turn of a multiple of a quarter, a short polynomial serves; the
    library's functions would bring a reduction for huge angles, which needs the stack.
    """
    quarter = (bits + 0x20000000) >> 30
    x = (bits - (quarter << 30)).to(tl.int32, bitcast=True).to(tl.float64) * 1.4629180792671596e-9
    u = x * x
    s = (((u / 362880 - 1 / 5040) * u + 1 / 120) * u - 1 / 6) * u * x + x
    c = ((((-u / 3628800 + 1 / 40320) * u - 1 / 720) * u + 1 / 24) * u - 0.5) * u + 1.0
    quarter += 3 * odd
    value = tl.where((quarter & 1) != 0, s, c)
    return tl.where(((quarter + 1) & 2) != 0, -value, value)


@triton.jit(do_not_specialize=["N"])
def spread_kernel(request, planes, N, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK samples of BLOCK places."""
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    samples = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = places < N
    at = tl.load(integers(request, WITHIN) + places, mask=inside, other=-1)
    real = (at >= 0)[:, None] & (samples < SIZE)[None, :]
    index = at[:, None] + samples[None, :]
    if tl.load(request + NOISE) != 0:
        row = tl.load(integers(request, ROW) + places, mask=at >= 0, other=0)
        begin = row * tl.load(request + SAMPLES)
        value = tl.load(floats(request, NOISE) + begin[:, None] + index, mask=real, other=0.0)
    else:
        piece = tl.load(integers(request, PIECE) + places, mask=at >= 0, other=0)
        seed = tl.load(request + SEEDS + piece, mask=at >= 0, other=0)
        sigma = tl.load(request + SIGMA).to(tl.int32).to(tl.float32, bitcast=True)
        drawn = normal(seed[:, None], index + tl.load(request + START))
        value = tl.where(real, sigma * drawn, 0.0)
    to = planes + samples[None, :].to(tl.int64) * N + places[:, None]
    tl.store(to, value, mask=inside[:, None] & (samples < SIZE)[None, :])


@triton.jit(do_not_specialize=["N"])
def collect_kernel(request, planes, N, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK samples of BLOCK places."""
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    samples = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = tl.load(integers(request, TARGET) + places, mask=places < N, other=-1)
    real = (at >= 0)[:, None] & (samples < SIZE)[None, :]
    value = tl.load(planes + samples[None, :].to(tl.int64) * N + places[:, None],
                    mask=real, other=0.0)  # fmt: skip
    tl.store(floats(request, AUDIO) + at[:, None] + samples[None, :], value, mask=real)
    bad = tl.max(tl.max((tl.abs(value) < float("inf")).to(tl.int32) ^ 1, axis=1), axis=0)
    tl.store(integers(request, FLAG), tl.load(request + CALL), mask=bad > 0)


@triton.jit(do_not_specialize=["N", "TOTAL"])
def frames_kernel(request, out, N, TOTAL, MELS: tl.constexpr, BANDS: tl.constexpr,
                  WIDE: tl.constexpr, SIZE: tl.constexpr, BEFORE: tl.constexpr,
                  TF32: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """ROWS rows; WIDE is BANDS rounded up to a power of two."""
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    band = tl.arange(0, WIDE)
    place = r - BEFORE
    inside = (place >= 0) & (place < N)
    at = tl.load(integers(request, WITHIN) + place, mask=inside, other=-1)
    row = tl.load(integers(request, ROW) + place, mask=at >= 0, other=0)
    count = tl.load(request + FRAMES)
    first = row * MELS * count + tl.where(at >= 0, at // SIZE, 0)
    value = tl.load(floats(request, MEL) + first[:, None] + band[None, :] * count,
                    mask=(at >= 0)[:, None] & (band < MELS)[None, :], other=0.0)  # fmt: skip
    to = r.to(tl.int64)[:, None] * BANDS + band[None, :]
    kept = (band < BANDS)[None, :] & (to < TOTAL)
    tl.store(out + to, stored(value, TF32).to(out.dtype.element_ty), mask=kept)


def options(size: int) -> dict[str, int]:
    """The compile-time arguments of the first two kernels for P*G samples a place."""
    return {"SIZE": size, "BLOCK": BLOCK, "num_warps": 8}


def frames_options(
    mels: int, bands: int, size: int, before: int, products: Products
) -> dict[str, int]:
    """The compile-time arguments of :func:`frames_kernel`."""
    wide = triton.next_power_of_2(bands)
    return {
        "MELS": mels, "BANDS": bands, "WIDE": wide, "SIZE": size, "BEFORE": before,
        "TF32": products == "tf32", "ROWS": ROWS, "num_warps": 4,
    }  # fmt: skip


def spread(request: Tensor, planes: Tensor) -> None:
    """Write all channels of ``planes``: the noise of the request, zero outside utterances.

    Args:
        request: int64, see :func:`fastglow.kernels.request.words`.
        planes: [P, G, N] float32.
    """
    size, places = planes.shape[0] * planes.shape[1], planes.shape[2]
    grid = (triton.cdiv(places, BLOCK), triton.cdiv(size, BLOCK))
    spread_kernel[grid](request, planes, places, **options(size))


def collect(request: Tensor, planes: Tensor) -> None:
    """Write the request's audio at the places that have samples; set its flag if one is not finite.

    Args:
        request: int64, see :func:`fastglow.kernels.request.words`.
        planes: [P, G, N] float32.
    """
    size, places = planes.shape[0] * planes.shape[1], planes.shape[2]
    grid = (triton.cdiv(places, BLOCK), triton.cdiv(size, BLOCK))
    collect_kernel[grid](request, planes, places, **options(size))


def frames(
    request: Tensor,
    out: Tensor,
    *,
    places: int,
    mels: int,
    bands: int,
    size: int,
    before: int,
    products: Products,
) -> None:
    """Write all of ``out``: row ``before + n`` holds the frame of place n, others zeros.

    Args:
        request: int64, see :func:`fastglow.kernels.request.words`.
        out: Flat; rows of ``bands`` numbers.
        places: N.
        mels: Bands of the mel.
        bands: Numbers a row, at least as many.
        size: Samples a frame.
        before: Rows before the first place's.
        products: That the windows are for.
    """
    rows = triton.cdiv(out.numel(), bands)
    frames_kernel[(triton.cdiv(rows, ROWS),)](
        request, out, places, out.numel(), **frames_options(mels, bands, size, before, products)
    )
