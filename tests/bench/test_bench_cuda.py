"""The code for GPUs, without one: PyTorch's CUDA interface is replaced by a recording fake."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastglow.bench import cuda, cuda_peers, gate, rounds
from fastglow.bench.candidates import Ours, Shape
from fastglow.bench.model import make_inputs
from fastglow.bench.published import published_graph
from fastglow.errors import InputError
from fastglow.vocoder import Vocoder

FRAMES = 6


class FakeGraph:
    """Records what is captured and runs it again on replay."""

    replays = 0

    def replay(self):
        FakeGraph.replays += 1


class FakeEvent:
    """Time passes by one unit at each record."""

    now = 0.0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        FakeEvent.now += 1.0
        self.at = FakeEvent.now

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return 1000 * (end.at - self.at)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that is the CPU; yields what was done, in order."""
    done = []
    stream = SimpleNamespace(wait_stream=lambda other: done.append("wait"))

    @contextmanager
    def using(stream):
        done.append("side")
        yield

    @contextmanager
    def capturing(graph):
        done.append("capture")
        yield
        done.append("captured")

    fakes = {
        "is_available": lambda: True,
        "Event": FakeEvent,
        "Stream": lambda: stream,
        "stream": using,
        "current_stream": lambda: stream,
        "CUDAGraph": FakeGraph,
        "graph": capturing,
        "synchronize": lambda: done.append("synchronize"),
        "memory_allocated": lambda: 1000,
        "max_memory_allocated": lambda: 1500,
        "reset_peak_memory_stats": lambda: done.append("reset"),
        "empty_cache": lambda: done.append("empty"),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(cuda, "DEVICE", "cpu")
    monkeypatch.setattr(cuda, "SIZE", 64)
    monkeypatch.setattr(cuda, "COPY_BYTES", 1 << 10)
    monkeypatch.setattr(rounds, "MOST", 1)
    FakeGraph.replays = 0
    return done


def test_no_gpu_is_an_error_that_says_what_to_check(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="--device cpu"):
        cuda.CudaDevice()


def test_a_call_is_timed_between_two_events(gpu):
    assert cuda.CudaDevice().clock(lambda: None) == 1.0

    def slow():
        FakeEvent.now += 3

    assert cuda.CudaDevice().clock(slow) == 4.0


def test_ceiling_and_bandwidth_count_operations_and_bytes(gpu):
    device = cuda.CudaDevice()
    assert device.precisions[0] == "fp16"
    for precision in ("bf16", "tf32", "fp32"):
        assert device.ceiling(precision) == 2 * 64**3  # in the fake's one second
    assert device.bandwidth() == 2 * 4 * (1 << 10)


def test_memory_is_read_when_the_gpu_is_done(gpu):
    device = cuda.CudaDevice()
    device.reset_peak()
    assert (device.allocated(), device.peak()) == (1000, 1500)
    assert gpu == ["reset", "synchronize", "synchronize"]
    device.release()
    assert gpu[-1] == "empty"


def test_tf32_is_allowed_inside_and_put_back():
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    for allowed in (True, False):
        with cuda.tf32(allowed):
            assert [flag.allow_tf32 for flag in flags] == [allowed, allowed]
        with pytest.raises(ZeroDivisionError), cuda.tf32(allowed):
            _ = 1 / 0
        assert [flag.allow_tf32 for flag in flags] == before


def test_a_graph_is_warmed_up_aside_captured_once_and_replayed(gpu):
    calls = []

    def call():
        calls.append(1)
        gpu.append("call")
        return "audio"

    graph = cuda.Graph(call)
    assert gpu == []  # nothing before the first call, which the memory meter watches
    assert [graph(), graph()] == ["audio", "audio"]
    assert gpu == ["wait", "side", *["call"] * 3, "wait", "capture", "call", "captured"]
    assert FakeGraph.replays == 2


def test_a_kernel_is_launched_many_times_in_one_graph(gpu):
    launches = []
    seconds = cuda.CudaDevice().clock_kernel(lambda: launches.append(1))
    assert seconds == pytest.approx(1.0 / cuda.LAUNCHES)
    assert len(launches) == 4 * cuda.LAUNCHES  # three of warm-up, one captured
    assert FakeGraph.replays == 1 + cuda.CEILING_RUNS


@pytest.mark.parametrize("peer", cuda_peers.PEERS, ids=lambda peer: peer.key)
def test_every_gpu_peer_passes_the_gate_on_the_noise_that_it_is_given(
    gpu, tiny, tmp_path, monkeypatch, peer
):
    compiled = []

    def compile_(graph, dynamic):
        compiled.append(dynamic)
        return graph

    monkeypatch.setattr(torch, "compile", compile_)
    inputs = make_inputs(tiny, FRAMES, 2, FRAMES, 2)
    candidate = peer.build(Shape(published_graph(tiny.weights), inputs, 2, tmp_path))
    expected = gate.references(tiny.weights, inputs, [FRAMES])[FRAMES]
    error = gate.audio_error(candidate.audio(), expected, inputs.noise.shape)
    assert error <= gate.bar(peer.precision, expected.fp32_error)
    assert (error > 1e-5) == (peer.precision == "fp16")
    assert candidate.precision == peer.precision
    assert compiled == ([False] if peer.key == "compile" else [])
    assert (FakeGraph.replays > 0) == (peer.key in ("compile", "graph"))


class FakeEngine:
    """An engine with the GPU engine's interface; "cpu:0" is another name of the CPU."""

    device, precision, conditioning, description = "cpu:0", "fp16", "phases", "a fake"

    def infer_device(self, mel, noise, lengths):
        assert isinstance(mel, torch.Tensor)
        assert isinstance(noise, torch.Tensor)
        assert lengths == [FRAMES, FRAMES]
        return 2 * noise

    def infer(self, mel, noise, lengths):
        return np.zeros((len(mel), mel.shape[2] * 256), np.float32)


def test_ours_runs_on_tensors_that_lie_on_the_gpu(tiny, monkeypatch):
    asked = {}

    def load(source, **options):
        asked.update(options, source=source)
        return Vocoder(tiny.weights, FakeEngine())

    monkeypatch.setattr(Vocoder, "load", load)
    inputs = make_inputs(tiny, FRAMES, 2, FRAMES, 2)
    candidate = Ours(tiny, "cuda", "fp16", "auto", None).at(inputs)
    assert isinstance(candidate.call(), torch.Tensor)  # left where it is
    assert np.array_equal(candidate.audio(), 2 * inputs.noise)
    assert candidate.end_to_end().shape == inputs.noise.shape
    assert (candidate.name, candidate.precision, candidate.form) == (
        "fastglow",
        "fp16",
        "rewritten",
    )
    assert asked == {
        "source": tiny.source,
        "device": "cuda",
        "precision": "fp16",
        "conditioning": "auto",
        "threads": None,
    }
