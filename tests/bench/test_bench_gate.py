"""The gate: what is right passes, what is wrong gets no speed."""

from dataclasses import replace

import numpy as np
import pytest

from fastglow.bench import gate
from fastglow.bench.model import Inputs, make_inputs, random_weights
from fastglow.checkpoint.weights import Weights
from fastglow.config import WaveGlowConfig
from fastglow.plan import Plan
from fastglow.plan.evaluate import evaluate

from models import ODD, TINY


def prefix(model):
    return gate.reference_frames(model.weights.config)


def test_the_reference_is_the_plan_in_float64(tiny):
    inputs = make_inputs(tiny, 9, 1, prefix(tiny), 3)
    expected = gate.references(tiny.weights, inputs, [9])[9]
    other = evaluate(
        Plan(tiny.weights), inputs.mel[0].astype(float), inputs.noise[0].astype(float), 1.0
    )
    assert expected.audio.shape == other.shape
    assert gate.relative_error(expected.audio, other) < 1e-12
    assert 0 < expected.fp32_error < 5e-6


@pytest.mark.parametrize("name", ["tiny", "odd channels, kernel 5, swapped halves"])
def test_the_beginning_of_a_long_utterance_is_that_of_a_short_one(tiny, name):
    config = ODD[name]
    model = replace(tiny, weights=random_weights(config))
    limit = gate.reference_frames(config)
    long = make_inputs(model, 3 * limit, 1, limit, 3)
    found = gate.references(model.weights, long, [limit, 3 * limit])
    whole = evaluate(Plan(model.weights), long.mel[0].astype(float), long.noise[0].astype(float), 1)
    expected = found[3 * limit]
    assert len(expected.audio) == config.samples(limit) - gate.lookahead(config)
    assert len(expected.audio) >= config.samples(gate.CHECKED_FRAMES)
    assert gate.relative_error(expected.audio, whole[: len(expected.audio)]) < 1e-12
    assert len(found[limit].audio) == config.samples(limit)


def test_the_published_model_is_checked_on_128_frames():
    config = WaveGlowConfig()
    assert gate.lookahead(config) == 12 * 255 * 8
    assert gate.reference_frames(config) == 128


def test_every_row_and_sample_that_has_a_reference_counts(tiny):
    limit = prefix(tiny)
    inputs = make_inputs(tiny, 2 * limit, 3, limit, 3)
    expected = gate.references(tiny.weights, inputs, [2 * limit])[2 * limit]
    audio = np.zeros(inputs.noise.shape, np.float32)
    audio[:, : len(expected.audio)] = expected.audio
    shape = inputs.noise.shape
    assert gate.audio_error(audio, expected, shape) < 1e-6
    for row in range(3):
        bad = audio.copy()
        bad[row, len(expected.audio) - 1] += 0.1
        assert gate.audio_error(bad, expected, shape) > 1e-3
    assert gate.audio_error(audio[:, :-1], expected, shape) == float("inf")
    audio[1, 5] = np.nan
    assert gate.audio_error(audio, expected, shape) == float("inf")


def test_bars():
    assert gate.bar("fp16", 0.0) == 2e-3
    assert gate.bar("tf32", 1.0) == 2e-3
    assert gate.bar("bf16", 0.0) == 1.5e-2
    assert gate.bar("fp32", 3e-7) == 5e-6
    assert gate.bar("fp32", 2e-5) == 4e-5


def test_only_peers_that_are_no_less_precise_are_compared():
    order = ["fp32", "tf32", "fp16", "bf16"]
    fair = {p: [q for q in order if gate.comparable(q, p)] for p in order}
    assert fair == {
        "fp32": ["fp32"],
        "tf32": ["fp32", "tf32", "fp16"],
        "fp16": ["fp32", "tf32", "fp16"],
        "bf16": order,
    }


def test_inputs_begin_alike_in_every_row_and_at_every_length(tiny):
    long, short = make_inputs(tiny, 50, 3, 20, 5), make_inputs(tiny, 30, 1, 20, 5)
    samples = TINY.samples
    assert isinstance(long, Inputs)
    assert long.mel.shape == (3, TINY.n_mel_channels, 50)
    assert long.noise.shape == (3, samples(50))
    assert long.mel.dtype == long.noise.dtype == np.float32
    assert np.array_equal(long.mel[:1, :, :30], short.mel)
    assert np.array_equal(long.noise[:1, : samples(30)], short.noise)
    for row in range(3):
        assert np.array_equal(long.mel[row, :, :20], long.mel[0, :, :20])
        assert np.array_equal(long.noise[row, : samples(20)], long.noise[0, : samples(20)])
    assert not np.array_equal(long.mel[1], long.mel[0])
    assert not np.array_equal(long.noise[1], long.noise[0])
    assert 0.55 < long.noise.std() < 0.65


def test_a_real_model_hears_speech(tiny):
    inputs = make_inputs(replace(tiny, random=False), 2000, 2, 20, 5)
    assert inputs.mel.shape == (2, TINY.n_mel_channels, 2000)
    assert -12 < inputs.mel.min() < -8
    assert inputs.mel.max() < 3


def test_random_weights_are_float32_exact_and_orthogonal():
    weights = random_weights(TINY, 4)
    assert isinstance(weights, Weights)
    for name in weights:
        assert np.array_equal(weights[name], weights[name].astype(np.float32)), name
    matrix = weights["convinv.1.conv.weight"][:, :, 0]
    assert np.allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-6)
