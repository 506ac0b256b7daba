"""Streamed audio is bit for bit that of the whole utterance."""

import gc
import itertools
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastglow.engines.cpu.stream as stream_module
import fastglow.streaming
from fastglow.config import WaveGlowConfig, WNConfig
from fastglow.engines.cpu import CpuEngine
from fastglow.engines.cpu.stream import Reach
from fastglow.errors import EngineError, InputError
from fastglow.noise import SeededNoise, normal
from fastglow.plan import Plan
from fastglow.vocoder import Vocoder

from models import RAGGED, TINY, random_input, random_weights
from streams import cut, recomputed

# A receptive field of a few frames, so that short streams have a middle.
CONFIG = replace(TINY, n_flows=3, wn=WNConfig(n_layers=5, n_channels=8))
WEIGHTS = random_weights(CONFIG)
PLANS = {form: Plan(WEIGHTS, form) for form in ("phases", "published")}
VOCODERS = {form: Vocoder(WEIGHTS, CpuEngine(plan)) for form, plan in PLANS.items()}


@pytest.mark.parametrize("form", ["phases", "published"])
@settings(max_examples=25, deadline=None)
@given(
    total=st.integers(1, 150),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    frames=st.integers(1, 50),
    seed=st.integers(0, 2**64 - 1),
    manner=st.fixed_dictionaries(
        {}, optional={"denoise": st.floats(0, 1), "match_mel": st.floats(0, 1)}
    ),
)
def test_streamed_equals_whole(form, total, sizes, frames, seed, manner):
    vocoder = VOCODERS[form]
    mel = random_input(CONFIG, total)[0][0].astype(np.float32)
    pieces = list(vocoder.stream(cut(mel, sizes), seed=seed, frames=frames, **manner))
    assert np.array_equal(np.concatenate(pieces), vocoder.synthesize(mel, seed=seed, **manner))


@pytest.mark.parametrize("frames", [1, 25])
@pytest.mark.parametrize("form", ["phases", "published"])
def test_a_caller_may_use_one_array_for_all_chunks(form, frames):
    mel = random_input(CONFIG, 100)[0][0].astype(np.float32)
    buffer = np.empty((CONFIG.n_mel_channels, 10), np.float32)

    def chunks():
        for piece in cut(mel, [10]):
            buffer[:] = piece
            yield buffer

    manner = {"seed": 1, "denoise": 0.1, "match_mel": 1.0}
    pieces = list(VOCODERS[form].stream(chunks(), frames=frames, **manner))
    assert np.array_equal(np.concatenate(pieces), VOCODERS[form].synthesize(mel, **manner))


def test_audio_comes_before_the_mel_has_ended():
    vocoder = VOCODERS["phases"]
    lookahead = vocoder.engine.stream(SeededNoise((0,), 1.0)).lookahead
    mel = random_input(CONFIG, 100)[0][0].astype(np.float32)
    seen = []

    def chunks():
        for piece in cut(mel, [10]):
            seen.append(piece.shape[1])
            yield piece

    first = next(vocoder.stream(chunks(), frames=10))
    assert lookahead < 10
    assert sum(seen) == 10
    assert len(first) == (10 - lookahead) * CONFIG.hop_length


def test_the_lookahead_of_the_published_model_is_its_receptive_field():
    config = WaveGlowConfig()
    assert config.n_flows * Reach.of(config).delay == config.receptive_field[1]


@pytest.mark.parametrize("lookahead", range(5))
def test_a_shorter_lookahead_is_what_it_says(lookahead):
    mel = random_input(CONFIG, 40)[0][0]
    sizes = [7, 1, 16, 3, 13]
    state = VOCODERS["phases"].engine.stream(SeededNoise((5,), 0.7), lookahead)
    whole = CONFIG.n_flows * Reach.of(CONFIG).delay
    assert state.lookahead == min(lookahead, whole)
    pieces = [state.push(part.astype(np.float32)) for part in cut(mel, sizes)]
    given = np.cumsum([len(piece) for piece in pieces]) // CONFIG.hop_length
    assert list(given) == [max(0, n - state.lookahead) for n in np.cumsum(sizes)]
    audio = np.concatenate([*pieces, state.finish()])
    noise = 0.7 * normal(5, len(audio)).astype(np.float64)
    expected = recomputed(PLANS["phases"], mel, sizes, state.lookahead, noise)
    assert np.abs(audio - expected).max() < 1e-5 * np.abs(expected).max()
    exact = VOCODERS["phases"].synthesize(mel.astype(np.float32), seed=5, sigma=0.7)
    assert np.array_equal(audio, exact) == (lookahead >= whole)


def test_pushes_wider_than_the_buffers(monkeypatch):
    monkeypatch.setattr(stream_module, "WIDEST", 1)  # 16 frames at a time
    mel = random_input(CONFIG, 90)[0][0].astype(np.float32)
    pieces = list(VOCODERS["phases"].stream([mel], seed=3))
    assert np.array_equal(np.concatenate(pieces), VOCODERS["phases"].synthesize(mel, seed=3))


def test_streams_side_by_side_do_not_mix():
    vocoder = VOCODERS["phases"]
    mels = random_input(CONFIG, 60, 3)[0].astype(np.float32)
    streams = [vocoder.stream(cut(mel, [5 + i]), seed=i, frames=1) for i, mel in enumerate(mels)]
    pieces = [[] for _ in mels]
    for audios in itertools.zip_longest(*streams):
        for found, audio in zip(pieces, audios, strict=True):
            found.extend([] if audio is None else [audio])
    for i, (mel, found) in enumerate(zip(mels, pieces, strict=True)):
        assert np.array_equal(np.concatenate(found), vocoder.synthesize(mel, seed=i))


def test_closing_early_leaves_nothing_and_pulls_nothing_more():
    engine = CpuEngine(PLANS["phases"], threads=2)
    pulled = []

    def chunks():
        for part in cut(random_input(CONFIG, 400)[0][0].astype(np.float32), [20]):
            pulled.append(part)
            yield part

    state = engine.stream(SeededNoise((0,), 0.6))
    gone = weakref.ref(state)
    stream = fastglow.streaming.stream(state, chunks(), 20)
    next(stream)
    threads = threading.active_count()
    stream.close()
    del state, stream
    gc.collect()
    assert gone() is None
    assert len(pulled) == 1
    assert threading.active_count() <= threads


def test_audio_that_is_not_finite_raises():
    weights = random_weights(CONFIG)
    weights.stored["WN.1.end.bias"][-1] = -1000  # of the scale's logarithm: exp(1000) overflows
    stream = Vocoder(weights, CpuEngine(Plan(weights))).stream([np.zeros((8, 30), np.float32)])
    with pytest.raises(EngineError, match="finite"):
        list(stream)


def test_the_published_receptive_field():
    assert WaveGlowConfig().receptive_field == (99, 96)


@pytest.mark.parametrize(
    "chunk",
    [np.zeros((7, 3), "f4"), np.zeros(8, "f4"), np.zeros((8, 3), int), np.full((8, 1), np.nan)],
)
def test_a_bad_chunk_is_named(chunk):
    good = np.zeros((8, 4), np.float32)
    with pytest.raises(InputError, match="chunk 1"):
        list(VOCODERS["phases"].stream([good, chunk]))


def test_nothing_in_nothing_out_and_bad_arguments():
    vocoder = VOCODERS["phases"]
    assert list(vocoder.stream([])) == []
    for bad in ({"frames": 0}, {"frames": 1.5}, {"sigma": -1}, {"seed": -1}, {"lookahead": -1}):
        with pytest.raises(InputError):
            vocoder.stream([], **bad)
    ragged = random_weights(RAGGED)
    with pytest.raises(InputError, match="hop"):
        list(Vocoder(ragged, CpuEngine(Plan(ragged, "published"))).stream([]))
