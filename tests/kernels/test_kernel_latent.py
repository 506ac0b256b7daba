"""Noise into planes and planes into audio, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from fastglow import noise
from fastglow.kernels import latent


@triton.jit
def philox_kernel(low, high, out, k0, k1, N: tl.constexpr):
    at = tl.arange(0, N)
    a, b, c, d = latent.philox(
        tl.load(low + at).to(tl.uint32), tl.load(high + at).to(tl.uint32),
        k0.to(tl.uint32), k1.to(tl.uint32),
    )  # fmt: skip
    tl.store(out + at, a.to(tl.int64))
    tl.store(out + N + at, b.to(tl.int64))
    tl.store(out + 2 * N + at, c.to(tl.int64))
    tl.store(out + 3 * N + at, d.to(tl.int64))


@pytest.mark.parametrize("seed", [0, 1, 0x123456789ABCDEF0, 2**64 - 1])
@pytest.mark.parametrize("first", [0, 2**32 - 30, 2**62])
def test_integers_are_those_of_numpy(seed: int, first: int, device: str) -> None:
    index = np.arange(first, first + 64, dtype=np.uint64)
    low = torch.from_numpy((index & np.uint64(0xFFFFFFFF)).astype(np.int64)).to(device)
    high = torch.from_numpy((index >> np.uint64(32)).astype(np.int64)).to(device)
    out = torch.full((4, 64), -1, dtype=torch.int64, device=device)
    key = torch.tensor([seed & 0xFFFFFFFF, seed >> 32])
    philox_kernel[(1,)](low, high, out, int(key[0]), int(key[1]), N=64)
    assert np.array_equal(out.cpu().numpy(), noise.integers(seed, first, 64))


def signed(seed: int) -> int:
    return seed - 2**64 if seed >= 2**63 else seed


@pytest.mark.parametrize(("phases", "group"), [(1, 6), (4, 8), (32, 8)])
def test_normals_are_those_of_numpy(phases: int, group: int, device: str) -> None:
    places, samples = 130, phases * group
    seeds = [5, 2**64 - 3]
    base = torch.arange(places) * samples + 2**33 + 2
    base[::7] = -1
    row = (torch.arange(places) >= 60).int()
    planes = torch.full((phases, group, places), torch.nan, device=device)
    held = torch.tensor([signed(s) for s in seeds], device=device)
    latent.spread(None, held, 0.7, base.to(device), row.to(device), planes)
    expected = latent.reference_spread(None, held.cpu(), 0.7, base, row, planes)
    assert float((planes.cpu() - expected).abs().max()) <= 0.7e-6
    assert (planes[:, :, ::7] == 0).all()


def test_many_normals(device: str) -> None:
    """Rare bits too: radii near 0 and far out."""
    places = 2000 if device == "cpu" else 40_000
    planes = torch.empty(8, 8, places, device=device)
    base = torch.arange(places, device=device) * 64
    seeds = torch.tensor([11], device=device)
    latent.spread(None, seeds, 1.0, base, torch.zeros_like(base), planes)
    found = planes.flatten(0, 1).T.reshape(-1).cpu().numpy()
    assert np.abs(found - noise.normal(11, places * 64)).max() <= 1e-6


@pytest.mark.parametrize("places", [1, 7, 63, 130])
def test_given_noise_reaches_its_place_and_comes_back(places: int, device: str) -> None:
    phases, group = 3, 10
    samples = phases * group
    flat = torch.randn(places * samples, device=device)
    base = torch.arange(places, device=device) * samples
    base[places // 2] = -1
    row = torch.zeros_like(base)
    planes = torch.full((phases, group, places), torch.nan, device=device)
    latent.spread(flat, None, 1.0, base, row, planes)
    expected = latent.reference_spread(flat.cpu(), None, 1.0, base.cpu(), row.cpu(), planes)
    assert torch.equal(planes.cpu(), expected)

    audio = torch.full((places * samples,), 7.0, device=device)
    flag = torch.zeros(1, dtype=torch.int32, device=device)
    planes[:, :, places // 2] = torch.nan  # between utterances: not looked at
    after, _ = latent.reference_collect(planes, base, audio)
    latent.collect(planes, base, audio, flag)
    assert torch.equal(audio, after)
    assert not flag.item()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_value_that_is_not_finite_sets_the_flag(value: float, device: str) -> None:
    planes = torch.zeros(4, 8, 40, device=device)
    planes[3, 7, 39] = value
    base = torch.arange(40, device=device) * 32
    flag = torch.zeros(1, dtype=torch.int32, device=device)
    audio = torch.empty(40 * 32, device=device)
    latent.collect(planes, base, audio, flag)
    assert flag.item() == 1
    planes[3, 7, 39] = torch.finfo(torch.float32).max
    flag.zero_()
    latent.collect(planes, base, audio, flag)
    assert flag.item() == 0
