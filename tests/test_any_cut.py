"""However rows are cut, tiled, batched and streamed: the samples of the solo, untiled run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import fastglow.engines.cpu.engine as cpu
from fastglow.config import WNConfig
from fastglow.engines.cpu import CpuEngine
from fastglow.noise import SeededNoise
from fastglow.plan import Plan
from fastglow.vocoder import Vocoder

from models import ODD, TINY, random_weights

LONGEST = 10_336  # frames: 120 s
UNTILED = 1 << 20  # frames
CONFIG = replace(TINY, n_flows=3, wn=WNConfig(n_layers=5, n_channels=8))
COMMON = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@dataclass(frozen=True)
class Case:
    """Rows, and how they are cut.

    Attributes:
        lengths: Frames of each row.
        tile: Frames of a tile, as far as the engine allows.
        chunks: Frames of the parts in which the longest row's mel comes, over and over.
        waited: Frames that a stream waits for.
        seed: Of the noise.
    """

    lengths: tuple[int, ...]
    tile: int
    chunks: tuple[int, ...]
    waited: int
    seed: int


@st.composite
def cut(draw: st.DrawFn, rows: st.SearchStrategy[list[int]]) -> Case:
    """Rows of these lengths, cut anyhow."""
    lengths = draw(rows)
    sizes = st.one_of(st.integers(1, 9), st.integers(10, 300))
    short = max(lengths) < 400  # many parts of a long row only take time
    return Case(
        tuple(lengths),
        draw(st.one_of(st.just(1), st.integers(1, 3000))),
        tuple(draw(st.lists(sizes, min_size=1, max_size=4))),
        draw(sizes if short else st.integers(64, 1000)),
        draw(st.integers(0, 2**64 - 1)),
    )


def batches() -> st.SearchStrategy[Case]:
    """Up to 16 short rows: what goes wrong goes wrong at edges."""
    frames = st.integers(1, 60)
    rows = st.integers(1, 16).flatmap(lambda n: st.lists(frames, min_size=n, max_size=n))
    return cut(rows)


def long_rows(longest: int = LONGEST) -> st.SearchStrategy[Case]:
    """One row; hypothesis prefers small numbers, so every other one counts from the top."""
    below = st.integers(0, longest // 10).map(lambda n: longest - n)
    return cut(st.one_of(st.integers(1, longest), below).map(lambda n: [n]))


@contextmanager
def tiled(vocoder: Vocoder, frames: int) -> Iterator[None]:
    """Tiles of so many frames at least; a GPU's also hold the receptive field."""
    with pytest.MonkeyPatch.context() as patch:
        config, engine = vocoder.config, vocoder.engine
        if isinstance(engine, CpuEngine):
            channels = config.phases * config.wn.n_channels
            patch.setattr(cpu, "TILE_FLOATS", frames * channels)
        else:
            least = sum(config.receptive_field) + 1
            patch.setattr(engine, "_widest", min(max(frames, least), engine._widest))
        yield


def check(case: Case, solo: Vocoder, parted: Vocoder) -> None:
    """The batch and the stream of ``parted`` against each row alone by ``solo``."""
    config, rng = solo.config, np.random.default_rng(case.seed % 2**32)
    shape = (len(case.lengths), config.n_mel_channels, max(case.lengths))
    mels = rng.normal(-5, 2, shape).clip(-11.5, 2).astype(np.float32)
    with tiled(solo, UNTILED):
        alone = [
            solo.synthesize(mel[:, :n], seed=case.seed)
            for mel, n in zip(mels, case.lengths, strict=True)
        ]
    for mel, n in zip(mels, case.lengths, strict=True):
        mel[:, n:] = np.nan  # padding must not be read
    noise = SeededNoise((case.seed,) * len(mels), 0.6)
    with tiled(parted, case.tile):
        batch = parted.engine.infer(mels, noise, case.lengths)
    for found, expected in zip(batch, alone, strict=True):
        assert np.array_equal(found[: len(expected)], expected)
        assert not found[len(expected) :].any()
    row = int(np.argmax(case.lengths))
    parts = chunked(mels[row, :, : case.lengths[row]], case.chunks)
    streamed = list(parted.stream(parts, seed=case.seed, frames=case.waited))
    assert np.array_equal(np.concatenate(streamed), alone[row])


def chunked(mel: np.ndarray, sizes: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The mel in parts of these sizes, over and over."""
    at = index = 0
    while at < mel.shape[1]:
        size = sizes[index % len(sizes)]
        yield mel[:, at : at + size]
        at, index = at + size, index + 1


@pytest.fixture(scope="module")
def tiny() -> dict[tuple[str, int], Vocoder]:
    weights = random_weights(CONFIG)
    return {
        (form, threads): Vocoder(weights, CpuEngine(Plan(weights, form), threads=threads))
        for form in ("phases", "published")
        for threads in (1, 2, 3)
    }


@settings(max_examples=139, **COMMON)
@example(case=Case(tuple(range(1, 17)), 1, (3, 1), 1, 0), threads=3)
@given(case=batches(), threads=st.integers(1, 3))
def test_140_batches_of_a_tiny_model(tiny, case, threads):
    check(case, tiny["phases", 1], tiny["phases", threads])


@settings(max_examples=29, **COMMON)
@example(case=Case((LONGEST,), 1, (300,), 300, 0), threads=2)
@given(case=long_rows(), threads=st.integers(1, 3))
def test_30_long_rows_of_a_tiny_model(tiny, case, threads):
    check(case, tiny["phases", 1], tiny["phases", threads])


# Fewer and shorter with the published conditioning, whose upsampling in float64 is slow.
@settings(max_examples=22, **COMMON)
@given(case=batches(), threads=st.integers(1, 3))
def test_22_batches_with_published_conditioning(tiny, case, threads):
    check(case, tiny["published", 1], tiny["published", threads])


@settings(max_examples=8, **COMMON)
@given(case=long_rows(500), threads=st.integers(1, 3))
def test_8_long_rows_with_published_conditioning(tiny, case, threads):
    check(case, tiny["published", 1], tiny["published", threads])


@pytest.mark.parametrize("name", [name for name, config in ODD.items() if config.has_phases])
@settings(max_examples=5, **COMMON)
@given(batch=batches(), row=long_rows(200))
def test_odd_models(name, batch, row):
    weights = random_weights(ODD[name])
    vocoder = Vocoder(weights, CpuEngine(Plan(weights)))
    check(batch, vocoder, vocoder)
    check(row, vocoder, vocoder)


@cache
def voice_in_the_box(device: str) -> Vocoder:
    return Vocoder.load(device=device)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=10, **COMMON)
@given(batch=batches(), row=long_rows())
def test_20_cases_of_the_voice_in_the_box(batch, row):
    voice = voice_in_the_box("cpu")
    check(batch, voice, voice)
    check(row, voice, voice)


@pytest.mark.gpu
@settings(max_examples=10, **COMMON)
@given(batch=batches(), row=long_rows())
def test_20_cases_of_the_voice_in_the_box_on_a_gpu(batch, row):
    voice = voice_in_the_box("cuda")
    check(batch, voice, voice)
    check(row, voice, voice)
