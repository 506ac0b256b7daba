"""Streamed audio is bit for bit that of the whole utterance."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastglow.config import WaveGlowConfig, WNConfig
from fastglow.engines.cpu import CpuEngine
from fastglow.errors import InputError
from fastglow.plan import Plan
from fastglow.vocoder import Vocoder

from models import RAGGED, TINY, random_input, random_weights

# A receptive field of a few frames, so that short streams have a middle.
CONFIG = replace(TINY, n_flows=3, wn=WNConfig(n_layers=5, n_channels=8))
WEIGHTS = random_weights(CONFIG)
VOCODERS = {
    form: Vocoder(WEIGHTS, CpuEngine(Plan(WEIGHTS, form))) for form in ("phases", "published")
}


def cut(mel, sizes):
    """The mel in chunks of these sizes, over and over."""
    at, index = 0, 0
    while at < mel.shape[1]:
        size = sizes[index % len(sizes)]
        yield mel[:, at : at + size]
        at, index = at + size, index + 1


@pytest.mark.parametrize("form", ["phases", "published"])
@settings(max_examples=25, deadline=None)
@given(
    total=st.integers(1, 150),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    frames=st.integers(1, 50),
    seed=st.integers(0, 2**64 - 1),
)
def test_streamed_equals_whole(form, total, sizes, frames, seed):
    vocoder = VOCODERS[form]
    mel = random_input(CONFIG, total)[0][0].astype(np.float32)
    pieces = list(vocoder.stream(cut(mel, sizes), seed=seed, frames=frames))
    assert np.array_equal(np.concatenate(pieces), vocoder.synthesize(mel, seed=seed))


def test_audio_comes_before_the_mel_has_ended():
    before, after = CONFIG.receptive_field
    mel = random_input(CONFIG, 100)[0][0].astype(np.float32)
    seen = []

    def chunks():
        for piece in cut(mel, [10]):
            seen.append(piece.shape[1])
            yield piece

    first = next(VOCODERS["phases"].stream(chunks(), frames=10))
    assert len(first) >= 10 * 256
    assert sum(seen) <= 20 + after
    assert before == after + CONFIG.mel_taps - 1


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
    for bad in ({"frames": 0}, {"frames": 1.5}, {"sigma": -1}, {"seed": -1}):
        with pytest.raises(InputError):
            vocoder.stream([], **bad)
    ragged = random_weights(RAGGED)
    with pytest.raises(InputError, match="hop"):
        list(Vocoder(ragged, CpuEngine(Plan(ragged, "published"))).stream([]))
