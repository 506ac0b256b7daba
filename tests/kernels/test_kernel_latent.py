"""Noise into planes and planes into audio, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from fastglow import noise
from fastglow.kernels import latent
from fastglow.kernels.request import words


@triton.jit(do_not_specialize=["k0", "k1"])  # a 1 would be a constant without .to
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


class Asked:
    """A request over places of a batch of two rows, some of them outside utterances."""

    def __init__(
        self, device: str, places: int, size: int, *, seeds: tuple[int, ...] = (),
        sigma: float = 1.0, start: int = 0, holes: slice = slice(0), frames: int = 0,
    ) -> None:  # fmt: skip
        second = torch.arange(places) >= places // 2 + 1
        own = torch.arange(places) - second.long() * (places // 2 + 1)
        count = places // 2 + 1  # places of a row
        self.within = own * size
        self.within[holes] = -1
        self.row = second.long()
        self.target = torch.where(self.within < 0, -1, self.within + self.row * count * size)
        self.audio = torch.full((2, count * size), 7.0, device=device)
        self.noise = None if seeds else torch.randn(2, count * size, device=device)
        self.mel = torch.randn(2, 7, frames or count, device=device)
        self.flag = torch.zeros(1, dtype=torch.int64, device=device)
        self.seeds, self.sigma, self.start = list(seeds), sigma, start
        tables = {"within": self.within, "target": self.target, "row": self.row, "piece": self.row}
        self._held = {name: table.to(device) for name, table in tables.items()}
        self.words = torch.from_numpy(
            words(
                mel=self.mel,
                noise=self.noise,
                audio=self.audio,
                flag=self.flag,
                call=2**40 + 7,
                seeds=seeds,
                sigma=sigma,
                start=start,
                **self._held,
            )
        ).to(device)

    def expected(self, planes: torch.Tensor) -> torch.Tensor:
        noise = None if self.noise is None else self.noise.cpu()
        return latent.reference_spread(
            noise, self.seeds, self.sigma, self.start, self.within, self.row, self.row, planes
        )


@pytest.mark.parametrize(("phases", "group"), [(1, 6), (4, 8), (32, 8)])
def test_normals_are_those_of_numpy(phases: int, group: int, device: str) -> None:
    asked = Asked(device, 130, phases * group, seeds=(5, 2**64 - 3), sigma=0.7,
                  start=2**33 + 2, holes=slice(0, None, 7))  # fmt: skip
    planes = torch.full((phases, group, 130), torch.nan, device=device)
    latent.spread(asked.words, planes)
    assert float((planes.cpu() - asked.expected(planes)).abs().max()) <= 0.7e-6
    assert (planes[:, :, ::7] == 0).all()


def test_many_normals(device: str) -> None:
    """Rare bits too: radii near 0 and far out."""
    places = 2000 if device == "cpu" else 40_000
    planes = torch.empty(8, 8, places, device=device)
    asked = Asked(device, places, 64, seeds=(11, 12))
    latent.spread(asked.words, planes)
    found = planes.flatten(0, 1).T.reshape(-1).cpu().numpy()
    count = (places // 2 + 1) * 64
    expected = np.concatenate([noise.normal(11, count), noise.normal(12, places * 64 - count)])
    assert np.abs(found - expected).max() <= 1e-6


@pytest.mark.parametrize("places", [1, 7, 63, 130])
def test_given_noise_reaches_its_place_and_comes_back(places: int, device: str) -> None:
    phases, group = 3, 10
    hole = slice(places // 2, places // 2 + 1)
    asked = Asked(device, places, phases * group, holes=hole)
    planes = torch.full((phases, group, places), torch.nan, device=device)
    latent.spread(asked.words, planes)
    assert torch.equal(planes.cpu(), asked.expected(planes))

    planes[:, :, hole] = torch.nan  # between utterances: not looked at
    after, _ = latent.reference_collect(planes, asked.target, asked.audio)
    latent.collect(asked.words, planes)
    assert torch.equal(asked.audio, after)
    assert not asked.flag.item()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_value_that_is_not_finite_leaves_the_number_of_its_call(
    value: float, device: str
) -> None:
    planes = torch.zeros(4, 8, 40, device=device)
    planes[3, 7, 39] = value
    asked = Asked(device, 40, 32)
    latent.collect(asked.words, planes)
    assert asked.flag.item() == 2**40 + 7
    planes[3, 7, 39] = torch.finfo(torch.float32).max
    asked.flag.zero_()
    latent.collect(asked.words, planes)
    assert asked.flag.item() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(("places", "tail"), [(1, 0), (37, 5), (64, 24)])
def test_frames_reach_their_rows_and_all_else_is_zero(
    places: int, tail: int, dtype: torch.dtype, device: str
) -> None:
    asked = Asked(device, places, 32, holes=slice(3, None, 5))
    out = torch.full(((places + 3) * 8 + tail,), torch.nan, dtype=dtype, device=device)
    latent.frames(asked.words, out, places=places, mels=7, bands=8, size=32, before=3,
                  products="fp16")  # fmt: skip
    mel = asked.mel.cpu()
    expected = latent.reference_frames(mel, asked.within, asked.row, 32, 3, out.cpu(), 8)
    assert torch.equal(out.cpu(), expected)
    assert places < 37 or (expected != 0).any()
