"""The CPU engine against the float64 plan, and its promises about bits."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastglow.engines.cpu import CpuEngine
from fastglow.engines.cpu import engine as engine_module
from fastglow.engines.cpu.jit import host
from fastglow.engines.cpu.pack import bfloat16_pairs
from fastglow.errors import EngineError
from fastglow.plan import Plan
from fastglow.plan.evaluate import evaluate

from models import ODD, RAGGED, TINY, random_input, random_weights, relative_error

CASES = [(name, form) for name in ODD for form in ("phases", "published")]
TOLERANCE = 5e-6


def run(engine, mel, noise, lengths=None):
    lengths = lengths or [mel.shape[2]] * len(mel)
    return engine.infer(mel.astype(np.float32), noise.astype(np.float32), lengths)


@pytest.mark.parametrize(("name", "form"), CASES)
@pytest.mark.parametrize("frames", [1, 7, 100])
def test_engine_equals_the_plan_in_float64(name, form, frames):
    config = ODD[name]
    plan = Plan(random_weights(config), form)
    mel, noise = random_input(config, frames)
    expected = evaluate(plan, mel[0], noise[0], 1.0)
    assert relative_error(run(CpuEngine(plan, threads=2), mel, noise)[0], expected) <= TOLERANCE


def test_a_ragged_hop():
    plan = Plan(random_weights(RAGGED), "published")
    mel, noise = random_input(RAGGED, 11)
    found = run(CpuEngine(plan), mel, noise)[0]
    assert relative_error(found, evaluate(plan, mel[0], noise[0], 1.0)) <= TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_is_within_its_error_or_refused(name):
    """A processor without it must say so; there is no emulation to fall back on silently."""
    config, form = ODD[name[0]], name[1]
    plan = Plan(random_weights(config), form)
    if "bf16" not in host().precisions:
        with pytest.raises(EngineError, match="fp32"):
            CpuEngine(plan, precision="bf16")
        return
    mel, noise = random_input(config, 100)
    engine = CpuEngine(plan, precision="bf16", threads=2)
    found = run(engine, mel, noise)[0]
    expected = evaluate(plan, mel[0], noise[0], 1.0)
    assert 1e-5 < relative_error(found, expected) <= 1.5e-2
    two = run(engine, np.repeat(mel, 2, axis=0), np.repeat(noise, 2, axis=0), [100, 57])
    assert np.array_equal(two[0], found)
    solo = run(engine, mel[:, :, :57], noise[:, : config.samples(57)])[0]
    assert np.array_equal(two[1, : config.samples(57)], solo)


def test_pairs_are_rounded_as_torch_rounds_to_bfloat16():
    values = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    values[0, 0], values[1, 0] = 1 + 2**-8, 1 + 3 * 2**-8  # ties go to even
    pairs = bfloat16_pairs(values).view(np.uint32)
    expected = torch.tensor(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(pairs & 0xFFFF, expected[0::2])
    assert np.array_equal(pairs >> 16, expected[1::2])


@pytest.mark.parametrize("form", ["phases", "published"])
@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_each_row_of_a_padded_batch_is_bit_for_bit_its_solo_run(form, lengths, seed):
    engine = ENGINES[form]
    frames = max(lengths) + 2
    mel, noise = random_input(TINY, frames, len(lengths), seed)
    for row, count in enumerate(lengths):
        mel[row, :, count:] = np.nan  # padding must never be read
    batch = run(engine, mel, noise, lengths)
    for row, count in enumerate(lengths):
        samples = TINY.samples(count)
        solo = run(engine, mel[row : row + 1, :, :count], noise[row : row + 1, :samples])
        assert np.array_equal(batch[row, :samples], solo[0])
        assert not batch[row, samples:].any()


@pytest.mark.parametrize("form", ["phases", "published"])
def test_tiles_and_threads_do_not_change_a_bit(monkeypatch, form):
    mel, noise = random_input(TINY, 333, 2)
    weights = random_weights(TINY)
    whole = run(CpuEngine(Plan(weights, form), threads=1), mel, noise, [333, 250])
    monkeypatch.setattr(engine_module, "TILE_FLOATS", 1)  # the narrowest tiles allowed
    for threads in (1, 2, 5):
        tiled = run(CpuEngine(Plan(weights, form), threads=threads), mel, noise, [333, 250])
        assert np.array_equal(tiled, whole)


def test_an_interrupted_call_leaves_the_engine_usable(monkeypatch):
    """The main thread is stopped between two jobs while helpers still compute."""
    mel, noise = random_input(TINY, 400)
    engine = CpuEngine(Plan(random_weights(TINY)), threads=3)
    expected, flow, calls = run(engine, mel, noise), engine._machine._flow, []

    def interrupted(job, scratch):
        calls.append(job)
        if threading.current_thread() is threading.main_thread() and len(calls) > 2:
            raise KeyboardInterrupt
        flow(job, scratch)

    for _ in range(20):
        calls.clear()
        monkeypatch.setattr(engine._machine, "_flow", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(engine, mel, noise)
        monkeypatch.setattr(engine._machine, "_flow", flow)
        assert np.array_equal(run(engine, mel, noise), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_works_though_its_threads_are_gone():
    code = (
        "import os, sys; sys.path.insert(0, 'tests')\n"
        "from models import TINY, random_input, random_weights\n"
        "from fastglow.engines.cpu import CpuEngine\n"
        "from fastglow.plan import Plan\n"
        "engine = CpuEngine(Plan(random_weights(TINY)), threads=2)\n"
        "mel, noise = random_input(TINY, 40); mel, noise = mel.astype('f4'), noise.astype('f4')\n"
        "expected = engine.infer(mel, noise, [40])\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(int((engine.infer(mel, noise, [40]) == expected).all()))\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "1"


def test_the_same_call_gives_the_same_bits_from_several_threads():
    mel, noise = random_input(TINY, 50)
    engine = ENGINES["phases"]
    expected, found = run(engine, mel, noise), []
    threads = [
        threading.Thread(target=lambda: found.append(run(engine, mel, noise))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(np.array_equal(audio, expected) for audio in found)


@pytest.mark.parametrize("broken", ["mel", "noise", "scale"])
def test_values_that_are_not_finite_raise(broken):
    mel, noise = random_input(TINY, 20)
    weights = random_weights(TINY)
    if broken == "scale":  # log_s of -1000: exp(1000) overflows
        weights.stored["WN.1.end.bias"][-1] = -1000
    else:
        {"mel": mel, "noise": noise}[broken][0, ..., 10] = np.nan
    with pytest.raises(EngineError, match="finite"):
        run(CpuEngine(Plan(weights)), mel, noise)


@pytest.mark.parametrize("level", ["avx2", "baseline"])
def test_older_processors_give_right_answers(level, tmp_path):
    """The same code made for fewer lanes, in a process of its own."""
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from models import TINY, random_input, random_weights, relative_error\n"
        "from fastglow.engines.cpu import CpuEngine\n"
        "from fastglow.plan import Plan\n"
        "from fastglow.plan.evaluate import evaluate\n"
        "plan = Plan(random_weights(TINY)); mel, noise = random_input(TINY, 40)\n"
        "audio = CpuEngine(plan).infer(mel.astype('f4'), noise.astype('f4'), [40])[0]\n"
        "print(relative_error(audio, evaluate(plan, mel[0], noise[0], 1.0)))\n"
    )
    environment = {**os.environ, "FASTGLOW_CPU": level, "FASTGLOW_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) <= TOLERANCE
    cached = list(tmp_path.glob("fastglow/*.o"))
    assert len(cached) == 1
    cached[0].write_bytes(cached[0].read_bytes()[:-1])  # a torn cache is made again
    again = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert again.stdout == done.stdout


ENGINES = {form: CpuEngine(Plan(random_weights(TINY), form)) for form in ("phases", "published")}
