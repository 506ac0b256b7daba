"""A whole sweep on tiny models: which cases, which candidates, and the gate in its place."""

from dataclasses import replace

import numpy as np
import pytest

from fastglow.bench import peers, rounds
from fastglow.bench.devices import CpuDevice
from fastglow.bench.record import Ceilings
from fastglow.bench.sweep import Settings, Sweep
from fastglow.engines.cpu import CpuEngine
from fastglow.errors import CheckpointError

LIMITS = Ceilings({"fp32": 0.1})
QUICK = Settings(channels=(16,), seconds=(0.2,), precisions=("fp32",), runs=2)


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(rounds, "MOST", 1)
    made = CpuDevice(2)
    made.settle = 0.0
    return made


def pytorch():
    return [peer for peer in peers.known("cpu") if peer.key == "pytorch"]


def test_every_combination_is_measured_and_a_model_is_loaded_once(small_models, device):
    settings = replace(QUICK, channels=(1, 2), batches=(3,), seconds=(0.1, 0.4))
    stages = []
    with Sweep(settings, device, pytorch(), LIMITS) as sweep:
        cases = [sweep.measure(point, stages.append) for point in sweep.points]
    assert [(p.channels, p.batch, p.seconds) for p in sweep.points] == [
        (c, 3, s) for c in (1, 2) for s in (0.1, 0.4)
    ]
    assert stages.count("the model") == 2
    assert [(case.batch, case.frames) for case in cases] == [(3, 9), (3, 34)] * 2
    for case in cases:
        ours, peer = case.rows
        assert (ours.name, peer.name) == ("fastglow", "PyTorch")
        assert ours.refused is peer.refused is None
        assert ours.error <= ours.bar == 5e-6
        assert ours.form == "rewritten"
        assert peer.form == "published"
        assert ours.speed.calls == 2
        assert ours.speed.p20 <= ours.speed.p50 <= ours.speed.p80
        assert ours.speed.end_to_end > 0
        assert case.kernels == ()


def test_ticks_are_as_many_as_promised(small_models, device):
    stages = []
    with Sweep(QUICK, device, pytorch(), LIMITS) as sweep:
        sweep.measure(sweep.points[0], stages.append)
        assert len(stages) == sweep.ticks


def test_a_wrong_engine_gets_no_speed(small_models, device, monkeypatch):
    right, timed = CpuEngine.infer, []

    def wrong(self, mel, noise, lengths):
        timed.append(1)
        audio = right(self, mel, noise, lengths)
        audio[-1, 3] += 1e-3 * np.abs(audio).max()  # one sample of the last row
        return audio

    monkeypatch.setattr(CpuEngine, "infer", wrong)
    with Sweep(replace(QUICK, batches=(2,)), device, pytorch(), LIMITS) as sweep:
        case = sweep.measure(sweep.points[0])
    ours, peer = case.rows
    assert ours.speed is None
    assert "is over 5.0e-06" in ours.refused
    assert len(timed) == 1  # once for the gate, never for the clock
    assert peer.speed.times_fastest_peer == 1


def test_kernels_are_timed_where_an_engine_shows_them(small_models, device, monkeypatch):
    launched = []

    def kernels(self, frames, batch):
        assert (frames, batch) == (17, 2)
        return [("gate", 1e6, 1e3, lambda: launched.append(1))]

    monkeypatch.setattr(CpuEngine, "kernels", kernels, raising=False)
    with Sweep(replace(QUICK, batches=(2,), kernels=True), device, [], LIMITS) as sweep:
        (kernel,) = sweep.measure(sweep.points[0]).kernels
    assert launched == [1]
    assert (kernel.name, kernel.precision, kernel.launches) == ("gate", "fp32", 1)
    assert kernel.floor_seconds == pytest.approx(1e6 / 0.1e12)


def test_a_model_of_the_user(device, tiny):
    settings = replace(QUICK, model=str(tiny.source), conditioning="published")
    assert settings.to_dict()["model"] == tiny.source.name  # no path
    with Sweep(settings, device, [], LIMITS) as sweep:
        case = sweep.measure(sweep.points[0])
    assert case.rows[0].form == "rewritten, published conditioning"
    assert case.rows[0].refused is None
    assert case.channels == 16
    with (
        Sweep(replace(settings, model=str(tiny.source / "config.json")), device, [], LIMITS) as bad,
        pytest.raises(CheckpointError),
    ):
        bad.measure(bad.points[0])
