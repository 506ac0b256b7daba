# mypy: ignore-errors
"""Audio-shaped noise into planes, and planes into audio.

Both move [P*G, N] planes to or from rows of consecutive samples, a transposition: 8 bytes a
sample, 1.8 MB or 1 us for 10 s. Noise may be drawn here, with the integers of
:mod:`fastglow.noise` and its float64 arithmetic.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastglow import noise as source

BLOCK = 32  # samples of a place, and places, of a tile


def reference_spread(
    noise: Tensor | None,
    seeds: Tensor | None,
    sigma: float,
    base: Tensor,
    row: Tensor,
    planes: Tensor,
) -> Tensor:
    """What :func:`spread` writes [P, G, N], in plain PyTorch and numpy."""
    phases, group, places = planes.shape
    flat = torch.zeros(places, phases * group)
    for n, at in enumerate(base.tolist()):
        if at < 0:
            continue
        if noise is not None:
            flat[n] = noise[at : at + phases * group]
        else:
            seed = int(seeds[row[n]]) & 0xFFFFFFFFFFFFFFFF
            flat[n] = sigma * torch.from_numpy(source.normal(seed, phases * group, at))
    return flat.T.reshape(phases, group, places)


def reference_collect(planes: Tensor, base: Tensor, audio: Tensor) -> tuple[Tensor, bool]:
    """The audio that :func:`collect` writes, and whether a value is not finite."""
    after, samples = audio.clone(), planes.shape[0] * planes.shape[1]
    finite = True
    for n, at in enumerate(base.tolist()):
        if at >= 0:
            values = planes[:, :, n].reshape(-1)
            after[at : at + samples] = values
            finite &= bool(torch.isfinite(values).all())
    return after, not finite


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


@triton.jit(do_not_specialize=["N", "sigma"])
def spread_kernel(noise, seeds, sigma, base, row, planes, N, SAMPLES: tl.constexpr,
                  DRAW: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """BLOCK samples of BLOCK places."""
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    samples = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = places < N
    at = tl.load(base + places, mask=inside, other=-1).to(tl.int64)
    index = at[:, None] + samples[None, :]
    real = (at >= 0)[:, None] & (samples < SAMPLES)[None, :]
    if DRAW:
        which = tl.load(row + places, mask=at >= 0, other=0)
        value = tl.where(real, sigma * normal(tl.load(seeds + which)[:, None], index), 0.0)
    else:
        value = tl.load(noise + index, mask=real, other=0.0)
    target = planes + samples[None, :].to(tl.int64) * N + places[:, None]
    tl.store(target, value, mask=inside[:, None] & (samples < SAMPLES)[None, :])


@triton.jit(do_not_specialize=["N"])
def collect_kernel(planes, base, audio, flag, N, SAMPLES: tl.constexpr,
                   BLOCK: tl.constexpr):  # fmt: skip
    """BLOCK samples of BLOCK places."""
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    samples = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = tl.load(base + places, mask=places < N, other=-1).to(tl.int64)
    real = (at >= 0)[:, None] & (samples < SAMPLES)[None, :]
    value = tl.load(planes + samples[None, :].to(tl.int64) * N + places[:, None],
                    mask=real, other=0.0)  # fmt: skip
    tl.store(audio + at[:, None] + samples[None, :], value, mask=real)
    bad = tl.max(tl.max((tl.abs(value) < float("inf")).to(tl.int32) ^ 1, axis=1), axis=0)
    tl.store(flag, 1, mask=bad > 0)


def options(samples: int) -> dict[str, int]:
    """The compile-time arguments of both kernels for P*G samples a place."""
    return {"SAMPLES": samples, "BLOCK": BLOCK, "num_warps": 8}


def spread(
    noise: Tensor | None,
    seeds: Tensor | None,
    sigma: float,
    base: Tensor,
    row: Tensor,
    planes: Tensor,
) -> None:
    """Write all channels of ``planes`` [P, G, N] float32; zero where ``base`` is negative.

    Args:
        noise: Flat float32, already scaled; or None, and it is drawn from ``seeds``.
        seeds: [rows] int64 holding the bits of 64-bit seeds; used where ``noise`` is None.
        sigma: Scale of what is drawn.
        base: [N] int64, first sample of each place, -1 outside utterances. With ``noise`` an index
            into it; with ``seeds`` the absolute sample index within the place's own utterance.
        row: [N] int32 or int64, the row that a place belongs to; used with ``seeds``.
        planes: [P, G, N] float32.
    """
    samples, places = planes.shape[0] * planes.shape[1], planes.shape[2]
    spread_kernel[(triton.cdiv(places, BLOCK), triton.cdiv(samples, BLOCK))](
        noise if noise is not None else planes, seeds if noise is None else row, sigma, base, row,
        planes, places, DRAW=noise is None, **options(samples),
    )  # fmt: skip


def collect(planes: Tensor, base: Tensor, audio: Tensor, flag: Tensor) -> None:
    """Write ``audio`` at the places that have samples; set ``flag`` if one is not finite.

    Args:
        planes: [P, G, N] float32.
        base: [N] int64, index into ``audio`` of each place's first sample, or -1.
        audio: Flat float32.
        flag: [1] int32, set to 1 and never cleared.
    """
    samples, places = planes.shape[0] * planes.shape[1], planes.shape[2]
    collect_kernel[(triton.cdiv(places, BLOCK), triton.cdiv(samples, BLOCK))](
        planes, base, audio, flag, places, **options(samples)
    )
