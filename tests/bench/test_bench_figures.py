"""Figures: quantiles, rounds, operations, what a refused candidate is left with."""

from types import SimpleNamespace

import numpy as np
import pytest

from fastglow.bench import rounds
from fastglow.bench.candidates import Candidate
from fastglow.bench.devices import CpuDevice, Meter
from fastglow.bench.gate import Expected
from fastglow.bench.kernels import breakdown, floor_seconds
from fastglow.bench.model import Inputs
from fastglow.bench.record import Ceilings
from fastglow.bench.rounds import Timing, interleave
from fastglow.bench.trial import Trial, attempt, make_rows
from fastglow.plan.cost import cost

from models import TINY

FRAMES = 10
INPUTS = Inputs(
    np.zeros((2, TINY.n_mel_channels, FRAMES), np.float32),
    np.zeros((2, TINY.samples(FRAMES)), np.float32),
)
RIGHT = Expected(np.linspace(-1, 1, TINY.samples(FRAMES)), 0.0)


def candidate(name="fastglow", precision="fp32", form="rewritten", off=0.0):
    audio = np.tile(RIGHT.audio + off, (2, 1)).astype(np.float32)
    return Candidate(name, precision, form, "set", 1.5, lambda: audio)


def trial(*arguments, **more):
    one = candidate(*arguments, **more)
    return Trial(one.name, one.precision, 1e-5, one, 0.1, 100, 1e-7)


def test_quantiles_and_paired_ratios():
    timing = Timing(np.arange(1.0, 12.0))
    assert [timing.quantile(q) for q in (0.2, 0.5, 0.8)] == pytest.approx([3, 6, 9])
    assert timing.speedup_over(Timing(3 * np.arange(1.0, 12.0))) == pytest.approx(3)


def test_rounds_interleave_and_the_warm_up_does_not_count():
    order, ticks = [], []
    seconds = {"a": 5.0, "b": 7.0}

    def clock(call):
        call()
        return seconds[order[-1]] + (1000 if len(order) <= 2 else 0)

    calls = {name: lambda name=name: order.append(name) for name in seconds}
    timings = interleave(calls, 3, clock, tick=lambda: ticks.append(1))
    assert order == ["a", "b"] * 4
    assert timings["a"].seconds.tolist() == [5, 5, 5]
    assert timings["b"].seconds.tolist() == [7, 7, 7]
    assert len(ticks) == 3


@pytest.mark.parametrize(("seconds", "calls"), [(1.0, 3), (0.125, 8), (1e-6, 30)])
def test_short_calls_are_repeated_until_they_fill_a_second_within_reason(seconds, calls):
    ticks = []
    timing = interleave({0: int}, 3, lambda call: seconds, tick=lambda: ticks.append(1))[0]
    assert len(timing.seconds) == calls
    assert len(ticks) == 3


def test_speed_follows_from_the_median_and_the_plans_operations():
    ours, peer = trial(), trial("other", form="published")
    timings = {ours.key: Timing(np.array([0.1, 0.2, 0.4])), peer.key: Timing(np.full(3, 0.5))}
    ceilings = Ceilings({"fp32": 0.001})
    rows = make_rows([ours, peer], timings, TINY, INPUTS, ceilings, {ours.key: 0.25})
    samples = 2 * TINY.samples(FRAMES)
    for row, form, median in ((rows[0], "rewritten", 0.2), (rows[1], "published", 0.5)):
        flop = cost(TINY, form).flop_per_sample * samples
        assert row.speed.tflops == pytest.approx(flop / median / 1e12, rel=1e-3)
        assert row.speed.of_ceiling == pytest.approx(flop / median / 1e9, rel=1e-3)
        assert row.speed.khz == pytest.approx(samples / median / 1e3, rel=1e-3)
        assert row.speed.times_real_time == pytest.approx(samples / 22050 / median, rel=1e-3)
        assert row.speed.p50 == median
        assert row.form == form
    assert rows[0].speed.tflops < rows[1].speed.tflops * 2.5  # the published form costs more
    assert rows[0].speed.times_fastest_peer == pytest.approx(2.5)  # median of 5, 2.5, 1.25
    assert rows[1].speed.times_fastest_peer == 1
    assert (rows[0].speed.end_to_end, rows[1].speed.end_to_end) == (0.25, None)
    assert rows[0].speed.p20 == pytest.approx(0.14)
    assert rows[0].speed.p80 == pytest.approx(0.32)


def test_a_less_precise_peer_is_no_rival():
    trials = [trial(), trial("slow", "fp32"), trial("rough", "bf16")]
    spent = (1.0, 3.0, 0.5)
    timings = {t.key: Timing(np.full(3, s)) for t, s in zip(trials, spent, strict=True)}
    rows = make_rows(trials, timings, TINY, INPUTS, Ceilings({}), {})
    assert [row.speed.times_fastest_peer for row in rows] == [3, 1, 1]
    assert rows[0].speed.of_ceiling is None


@pytest.mark.parametrize(
    ("precision", "off", "passes"),
    [
        ("fp32", 4e-6, True),
        ("fp32", 6e-6, False),
        ("fp16", 1.9e-3, True),
        ("fp16", 2.1e-3, False),
        ("tf32", 2.1e-3, False),
        ("bf16", 1.4e-2, True),
        ("bf16", 1.6e-2, False),
        ("bf16", float("nan"), False),
    ],
)
def test_the_gate_refuses_a_wrong_candidate(precision, off, passes):
    wrong = candidate(precision=precision, off=off)
    found = attempt("x", precision, lambda: wrong, Meter(CpuDevice(1)), INPUTS, RIGHT)
    assert (found.refused is None) == passes
    if not passes:
        assert "is over" in found.refused
    rows = make_rows([found], {}, TINY, INPUTS, Ceilings({}), {})
    assert rows[0].speed is None
    assert rows[0].refused == found.refused
    assert rows[0].settings == "set"


def test_a_candidate_that_fails_is_a_row_and_not_the_end():
    def build():
        raise MemoryError("too large\nand a long story")

    found = attempt("x", "fp16", build, Meter(CpuDevice(1)), INPUTS, RIGHT)
    row = make_rows([found], {}, TINY, INPUTS, Ceilings({}), {})[0]
    assert row.refused == "failed: MemoryError: too large"
    assert row.error is None
    assert row.speed is None
    with pytest.raises(KeyboardInterrupt):
        attempt("x", "fp16", interrupt, Meter(CpuDevice(1)), INPUTS, RIGHT)


def interrupt():
    raise KeyboardInterrupt


def test_memory_is_what_one_candidate_holds_and_takes():
    levels = iter([100, 160, 130, 130, 150, 130])  # before, peak, after, twice
    device = SimpleNamespace(
        allocated=lambda: next(levels), peak=lambda: next(levels), reset_peak=lambda: None
    )
    meter = Meter(device)
    assert meter.measure(lambda: "loaded") == ("loaded", 60)
    assert meter.held == 30
    assert meter.measure(lambda: "ran") == ("ran", 50)  # 30 held and 20 for the call


def test_memory_of_the_process():
    device = CpuDevice(1)
    if device.allocated() is None:
        pytest.skip("no /proc here")
    kept, used = Meter(device).measure(lambda: np.ones(60_000_000 // 8))
    assert len(kept)
    assert used is None or 55e6 < used < 90e6


def test_cpu_ceiling_and_bandwidth_are_plausible(monkeypatch):
    monkeypatch.setattr("fastglow.bench.devices.CPU_SIZE", 256)
    monkeypatch.setattr("fastglow.bench.devices.COPY_BYTES", 1 << 20)
    monkeypatch.setattr("fastglow.bench.devices.CEILING_RUNS", 1)
    monkeypatch.setattr(rounds, "MOST", 1)
    device = CpuDevice()
    assert 1e8 < device.ceiling("fp32") < 1e15
    assert 1e8 < device.ceiling("bf16") < 1e15
    assert 1e7 < device.bandwidth() < 1e14


def test_kernels_are_added_up_against_their_floor():
    launched = []

    def launches():
        for layer in range(3):
            yield "gate", 4e9, 1e6, lambda: launched.append("gate")
            yield "residual", 1e6, 2e9, lambda layer=layer: launched.append(layer)

    def clock(launch):
        launch()
        return 0.01

    device = SimpleNamespace(clock_kernel=clock)
    gate, residual = breakdown(launches(), device, Ceilings({"fp16": 2.0}, 4.0), "fp16")
    assert launched == ["gate", 0, "gate", 1, "gate", 2]
    assert (gate.name, gate.launches, gate.flop, gate.bytes) == ("gate", 3, 12e9, 3e6)
    assert gate.seconds == pytest.approx(0.03)
    assert gate.floor_seconds == pytest.approx(3 * 4e9 / 2e12)  # bound by the products
    assert residual.floor_seconds == pytest.approx(3 * 2e9 / 4e12)  # bound by memory
    assert floor_seconds(Ceilings({}), "fp16", 1e9, 1e9) == 0
