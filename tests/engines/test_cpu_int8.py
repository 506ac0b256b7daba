"""Products of bytes on the CPU: what they compute, how far off it is, and equal bits."""

from dataclasses import replace

import numpy as np
import pytest

import fastglow.engines.cpu.engine as engine_module
from fastglow.engines.cpu import CpuEngine
from fastglow.engines.cpu.jit import host
from fastglow.engines.cpu.pack import signed_bytes
from fastglow.errors import EngineError
from fastglow.noise import SeededNoise
from fastglow.plan import Plan
from fastglow.plan.evaluate import _conditioning_input, evaluate
from fastglow.plan.upsample import upsampled

from models import ODD, TINY, random_input, random_weights, relative_error

CASES = [(name, form) for name, config in ODD.items() for form in ("phases", "published")
         if form == "published" or config.has_phases]  # fmt: skip
needs_vnni = pytest.mark.skipif("int8" not in host().precisions, reason="needs AVX-512 VNNI")


def run(engine, mel, noise, lengths=None):
    lengths = [mel.shape[2]] * len(mel) if lengths is None else lengths
    return engine.infer(mel.astype(np.float32), noise.astype(np.float32), lengths)


def rounded(matrix):
    """Each row to 8 bits of its largest magnitude."""
    scale = np.abs(matrix).max(axis=-1, keepdims=True) / 127
    return np.rint(matrix / np.where(scale, scale, 1)) * scale


def within_range(columns):
    """Each column to 8 bits between its least and its largest."""
    low = columns.min(axis=0)
    step = np.maximum((columns.max(axis=0) - low) / 255, 1e-20)
    return low + step * np.rint((columns - low) / step)


def taps(x, kernel, dilation):
    """[C * kernel, steps]: the columns that a dilated convolution reads."""
    reach = kernel // 2 * dilation
    padded = np.pad(x, ((0, 0), (reach, reach)))
    return np.concatenate([padded[:, j * dilation :][:, : x.shape[1]] for j in range(kernel)])


def simulated(plan, mel, noise):
    """The audio that the definition of int8 gives, in float64."""
    config = plan.config
    steps = config.steps(mel.shape[1])
    audio = noise[: steps * config.n_group].reshape(steps, config.n_group).T.copy()
    columns = upsampled(plan, mel) if plan.conditioning == "published" else None
    if columns is None:
        columns = np.repeat(_conditioning_input(plan, mel), config.phases, axis=1)
    columns = within_range(columns)
    for k in reversed(range(config.n_flows)):
        flow = plan.flow(k)
        audio[-flow.channels :] = one_flow(flow, audio[-flow.channels :], columns)
    return audio.T.reshape(-1)


def one_flow(flow, audio, columns):
    half, steps = flow.channels // 2, audio.shape[1]
    given, changed = (audio[half:], audio[:half]) if flow.swapped else (audio[:half], audio[half:])
    channels, padded = flow.start.shape[0], -(-flow.start.shape[0] // 8) * 8
    x = np.concatenate([given, np.ones((1, steps))])
    stream = flow.start @ given + flow.start_bias[:, None]
    out = np.repeat(flow.output_bias[:, None], steps, axis=1)
    for i, kernel in enumerate(flow.gate):
        read = taps(x, kernel.shape[1], 2**i)
        weights = kernel.transpose(0, 1, 2).reshape(len(kernel), -1)
        if i:
            zeros = np.zeros((1 if padded > channels else 0, steps))  # channels that pad
            count = len(read)
            read = within_range(np.concatenate([read, zeros]))[:count]
            weights = rounded(weights)
        gate = weights @ read + flow.gate_bias[i][:, None]
        matrix = flow.conditioning[i]
        if matrix.ndim == 2:
            gate += rounded(matrix) @ columns
        else:
            phases = matrix.shape[1]
            for p in range(phases):
                gate[:, p::phases] += rounded(matrix[:, p]) @ columns[:, p::phases]
        acts = np.tanh(gate[:channels]) / (1 + np.exp(-gate[channels:]))
        acts = np.rint(acts * 127) / 127
        out += rounded(flow.output[i]) @ acts
        if i < len(flow.gate) - 1:
            stream = stream + rounded(flow.residual[i]) @ acts + flow.residual_bias[i][:, None]
            x = stream
    changed = (changed - out[:half]) * np.exp(-out[half:])
    halves = (changed, given) if flow.swapped else (given, changed)
    return flow.inverse @ np.concatenate(halves)


@needs_vnni
@pytest.mark.parametrize(("name", "form"), CASES)
def test_it_is_what_the_definition_gives(name, form):
    """Of one flow: a level that float32 rounds the other way moves the bounds of later layers."""
    config = replace(ODD[name], n_flows=1)
    plan = Plan(random_weights(config), form)
    mel, noise = random_input(config, 60)
    found = run(CpuEngine(plan, precision="int8", threads=2), mel, noise)[0]
    expected, exact = simulated(plan, mel[0], noise[0]), evaluate(plan, mel[0], noise[0], 1.0)
    quantised = np.linalg.norm(expected - exact)
    assert 1e-4 < quantised / np.linalg.norm(exact) < 3e-2
    assert np.linalg.norm(found - expected) < 0.1 * quantised


@needs_vnni
@pytest.mark.parametrize(("name", "form"), CASES)
def test_it_is_within_its_error_and_bit_for_bit_alone(name, form):
    config = ODD[name]
    plan = Plan(random_weights(config), form)
    mel, noise = random_input(config, 100)
    engine = CpuEngine(plan, precision="int8", threads=2)
    found = run(engine, mel, noise)[0]
    assert relative_error(found, evaluate(plan, mel[0], noise[0], 1.0)) <= 3e-2
    two = run(engine, np.repeat(mel, 2, axis=0), np.repeat(noise, 2, axis=0), [100, 57])
    assert np.array_equal(two[0], found)
    solo = run(engine, mel[:, :, :57], noise[:, : config.samples(57)])[0]
    assert np.array_equal(two[1, : config.samples(57)], solo)


@needs_vnni
@pytest.mark.parametrize("form", ["phases", "published"])
def test_tiles_threads_and_streams_change_no_bit(monkeypatch, form):
    plan = Plan(random_weights(TINY), form)
    mel = random_input(TINY, 333)[0].astype(np.float32)
    noise = SeededNoise((3,), 0.6)
    whole = CpuEngine(plan, precision="int8", threads=1).infer(mel, noise, [333])
    monkeypatch.setattr(engine_module, "TILE_FLOATS", 1)
    engine = CpuEngine(plan, precision="int8", threads=3)
    assert np.array_equal(engine.infer(mel, noise, [333]), whole)
    stream = engine.stream(noise)
    parts = [stream.push(mel[0, :, at : at + 37]) for at in range(0, 333, 37)]
    assert np.array_equal(np.concatenate([*parts, stream.finish()]), whole[0])


@needs_vnni
@pytest.mark.parametrize("place", ["mel", "weight"])
def test_what_is_not_finite_is_not_hidden(place):
    weights = random_weights(TINY)
    mel, noise = random_input(TINY, 20)
    if place == "mel":
        mel[0, 3, 10] = np.nan
    else:  # the residual stream overflows after the first layer
        weights.stored["WN.2.res_skip_layers.0.weight"][0] = 3e38
    with pytest.raises(EngineError, match="finite"):
        run(CpuEngine(Plan(weights), precision="int8"), mel, noise)


def test_bytes_and_what_stands_after_them():
    values = np.random.default_rng(0).standard_normal((2, 3, 8))
    packed = signed_bytes(values)
    assert packed.shape == (2, 8 // 4 + 2, 3)
    levels = np.moveaxis(packed[:, :2], 1, 2).copy().view(np.int8).astype(float)
    scales, sums = packed[:, 2], packed[:, 3]
    assert np.array_equal(levels.sum(axis=-1), sums)
    assert np.abs(levels).max(axis=-1).min() == 127
    assert np.abs(levels * scales[..., None] - values).max() <= scales.max() / 2 * (1 + 1e-6)


def test_a_processor_without_it_says_so(monkeypatch):
    plan = Plan(random_weights(TINY))
    monkeypatch.setenv("FASTGLOW_CPU", "avx2")
    host.cache_clear()
    try:
        with pytest.raises(EngineError, match=r"AVX-512 VNNI.*use fp32"):
            CpuEngine(plan, precision="int8")
    finally:
        monkeypatch.undo()
        host.cache_clear()
