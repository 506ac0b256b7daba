"""The CUDA engine: through Triton's interpreter anywhere, and on the GPU where there is one."""

import os
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from fastglow.config import WaveGlowConfig, WNConfig
from fastglow.engines.cuda.checks import indexed
from fastglow.engines.cuda.inbox import SLOTS
from fastglow.engines.cuda.pieces import axes, bucket, cut
from fastglow.engines.cuda.room import Room
from fastglow.errors import EngineError, InputError
from fastglow.noise import SeededNoise, normal
from fastglow.plan.evaluate import evaluate
from fastglow.vocoder import Vocoder

import interpreter
from cuda_engines import engine, relative
from models import ODD, RAGGED, TINY, random_input

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="Triton is not installed")
if not torch.cuda.is_available():
    interpreter.install()

SHORT = replace(TINY, hop_length=16, upsample_kernel=64)  # two phases: the interpreter is slow
MODELS = {
    "two phases": SHORT,
    "swapped halves, kernel 5": replace(
        SHORT, wn=WNConfig(n_layers=2, n_channels=18, kernel_size=5), coupling="alternating"
    ),
    "odd mel bands": replace(SHORT, n_mel_channels=7),
    "one layer": replace(SHORT, n_flows=3, wn=WNConfig(n_layers=1, n_channels=16)),
    "group of 16": replace(
        SHORT, n_group=16, n_early_size=4, hop_length=32, upsample_kernel=128, n_flows=3
    ),
    **{name: ODD[name] for name in ("kernel of 1, hop of one step", "dilation over many frames")},
}
BAR = 1e-6  # in fp32


@pytest.mark.parametrize("form", ["phases", "published"])
@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())
def test_equals_the_plan_in_float64(config: WaveGlowConfig, form: str, device: str) -> None:
    mel, z = random_input(config, 3)
    found = engine(config, device, form=form)
    audio = found.infer(mel.astype(np.float32), (0.6 * z).astype(np.float32), [3])
    assert relative(audio[0], evaluate(found._plan, mel[0], z[0], 0.6)) < BAR


def test_a_ragged_hop_runs_step_by_step(device: str) -> None:
    mel, z = random_input(RAGGED, 2)
    found = engine(RAGGED, device)
    audio = found.infer(mel.astype(np.float32), (0.6 * z).astype(np.float32), [2])
    assert relative(audio[0], evaluate(found._plan, mel[0], z[0], 0.6)) < BAR


def test_every_launch_is_listed_with_its_cost(device: str) -> None:
    found = engine(SHORT, device)
    listed = found.kernels(3, 2)
    flow = ["layer"] * SHORT.wn.n_layers + ["coupling"]
    names = ["frames", "spread", "prepare", *flow * SHORT.n_flows, "collect"]
    assert [launch.name for launch in listed] == names
    for name, flop, moved, call in listed:
        assert (flop > 0) == (name in flow)
        assert moved > 0
        call()


def test_a_row_has_the_same_bits_alone_in_a_batch_and_in_pieces(device: str) -> None:
    config = replace(SHORT, n_flows=2, n_early_every=1, wn=WNConfig(n_layers=2, n_channels=16))
    mel, z = (a.astype(np.float32) for a in random_input(config, 45, rows=2))
    lengths = [45, 9]
    batch = engine(config, device).infer(mel, z, lengths)
    assert not batch[1, config.samples(9) :].any()
    for row, count in enumerate(lengths):
        size = config.samples(count)
        alone = engine(config, device).infer(
            mel[row : row + 1, :, :count].copy(), z[row : row + 1, :size].copy(), [count]
        )
        np.testing.assert_array_equal(batch[row, :size], alone[0])
    pieces = engine(config, device, widest=32).infer(mel, z, lengths)
    np.testing.assert_array_equal(batch, pieces)


def test_a_ragged_row_in_pieces_has_the_uncut_bits(device: str) -> None:
    config = replace(RAGGED, n_flows=2, wn=WNConfig(n_layers=2, n_channels=16))
    mel, z = (a.astype(np.float32) for a in random_input(config, 3))
    whole, pieces = engine(config, device), engine(config, device, widest=32)
    assert config.steps(3) > 2 * 32
    np.testing.assert_array_equal(whole.infer(mel, z, [3]), pieces.infer(mel, z, [3]))


def test_passes_narrower_than_the_receptive_field_are_refused(device: str) -> None:
    assert sum(SHORT.receptive_field) > 30
    with pytest.raises(InputError, match="receptive field"):
        engine(SHORT, device, widest=16)
    deep = replace(RAGGED, n_flows=1, wn=WNConfig(n_layers=14, n_channels=2))
    found = engine(deep, device)
    assert found._widest > sum(found._room.field) > 16_384


def test_passes_are_as_wide_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([10**9, 10**8, 10**7])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (next(free), 80 * 10**9))
    room = Room((99, 96), 40_000, torch.device("cuda"))
    assert room.most() == 16_384  # no more is of use
    assert room.most() == 1_984  # four fifths, in steps of 32
    with pytest.raises(EngineError, match=r"0\.0 GB are free on cuda; passes of 454 places"):
        room.most()


def test_passes_narrow_while_memory_runs_out(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SHORT, n_flows=1, n_early_size=0, wn=WNConfig(n_layers=1, n_channels=16))
    found = engine(config, device, widest=512)
    mel, z = (a.astype(np.float32) for a in random_input(config, 5))
    expected, run, limit = found.infer(mel, z, [5]), found._infer, 200

    def infer(*arguments: object) -> object:
        if found._widest > limit:
            raise torch.OutOfMemoryError
        return run(*arguments)

    monkeypatch.setattr(found, "_infer", infer)
    np.testing.assert_array_equal(found.infer(mel, z, [5]), expected)
    assert found._widest == 128
    limit = 0
    with pytest.raises(EngineError, match="no memory"):
        found.infer(mel, z, [5])


def test_tensors_that_do_not_fit_are_refused_before_a_kernel_reads_them(device: str) -> None:
    found = engine(MODELS["one layer"], device)
    mel = torch.zeros(2, 8, 5, device=device)
    noise = torch.zeros(2, found.config.samples(5), device=device)
    seeds = SeededNoise((1, 2), 0.6)
    for case in (
        (mel, noise[:1], [5, 5]),
        (mel, noise[:, 1:], [5, 5]),
        (mel, noise, [5, 6]),
        (mel, noise, [5]),
        (mel[:, :7], noise, [5, 5]),
        (mel, SeededNoise((1,), 0.6), [5, 5]),
        (mel.double(), noise, [5, 5]),
        (mel[:0], noise[:0], []),
    ):
        with pytest.raises(InputError, match=r"expected|float32"):
            found.infer_device(*case)
    assert found.infer_device(mel, seeds, [5, 1]).shape == noise.shape


def test_a_gpu_without_a_number_is_the_one_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert indexed("cuda") == torch.device("cuda", 3)
    assert indexed("cuda:1") == torch.device("cuda", 1)
    assert indexed("cpu") == torch.device("cpu")


def test_kernels_are_measured_in_one_pass(device: str) -> None:
    with pytest.raises(InputError, match="ask for less"):
        engine(SHORT, device, widest=64).kernels(60, 2)


def test_a_missing_c_compiler_is_named() -> None:
    from fastglow.engines.cuda.checks import explained

    with pytest.raises(EngineError, match="apt install gcc"), explained():
        raise RuntimeError("Failed to find C compiler. Please specify via CC")
    with pytest.raises(RuntimeError, match="something else"), explained():
        raise RuntimeError("something else")


def test_noise_drawn_on_the_device_is_the_cpu_s(device: str) -> None:
    config = replace(SHORT, n_flows=1, n_early_size=0, wn=WNConfig(n_layers=1, n_channels=16))
    found = engine(config, device)
    mel = random_input(config, 5, rows=2)[0].astype(np.float32)
    seeds = (3, 2**64 - 1)
    drawn = found.infer(mel, SeededNoise(seeds, 0.6, start=40), [5, 5])
    z = np.stack([0.6 * normal(seed, config.samples(5), 40) for seed in seeds])
    given = found.infer(mel, z.astype(np.float32), [5, 5])
    np.testing.assert_allclose(drawn, given, atol=1e-5)


@pytest.mark.filterwarnings("ignore:invalid value")  # the interpreter's numpy
def test_values_that_are_not_finite_raise(device: str) -> None:
    config = MODELS["one layer"]
    mel, z = (a.astype(np.float32) for a in random_input(config, 2))
    z[0, 5] = np.inf
    with pytest.raises(EngineError, match="not finite"):
        engine(config, device).infer(mel, z, [2])


def test_what_was_not_finite_is_not_told_of_a_later_call(device: str) -> None:
    found = engine(MODELS["one layer"], device)
    mel = torch.zeros(1, 8, 2, device=device)
    bad = torch.full((1, found.config.samples(2)), torch.nan, device=device)
    found.infer_device(mel, bad, [2], check=False)
    assert torch.isfinite(found.infer_device(mel, torch.zeros_like(bad), [2])).all()


@pytest.mark.parametrize("widest", [0, 32])
@pytest.mark.parametrize("config", [SHORT, RAGGED], ids=["phases", "ragged"])
def test_every_sample_is_written(
    config: WaveGlowConfig, widest: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, n_flows=1, n_early_every=4, wn=WNConfig(n_layers=2, n_channels=16))
    mel, z = (a.astype(np.float32) for a in random_input(config, 40 if config.has_phases else 3, 2))
    found, empty = engine(config, device, widest=widest), torch.empty

    def poisoned(*sizes: int, **more: object) -> torch.Tensor:
        made = empty(*sizes, **more)
        return made.fill_(torch.nan) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poisoned)
    assert np.isfinite(found.infer(mel, z, [mel.shape[2]] * 2)).all()


def test_calls_that_nobody_waits_for_keep_their_own_requests(device: str) -> None:
    found = engine(MODELS["one layer"], device)
    mel = torch.zeros(1, 8, 2, device=device)
    noises = [SeededNoise((seed,), 0.6) for seed in range(2 * SLOTS + 1)]
    expected = [found.infer_device(mel, noise, [2]) for noise in noises]
    if device == "cuda":
        torch.cuda._sleep(200_000_000)  # cycles: all are launched before the first begins
    heard = [found.infer_device(mel, noise, [2], check=False) for noise in noises]
    assert all(map(torch.equal, heard, expected))
    assert not torch.equal(expected[0], expected[1])


def test_pieces_cover_every_place_once_with_their_receptive_field() -> None:
    pieces = cut([100, 7, 31], 32, (3, 2))
    for row, count in enumerate((100, 7, 31)):
        own = [piece for piece in pieces if piece.row == row]
        cores = [place for p in own for place in range(p.core_first, p.core_last)]
        assert cores == list(range(count))
        for p in own:
            assert p.first == max(0, p.core_first - 3)
            assert p.first + p.count == min(count, p.core_last + 2)
            assert p.count <= 32
    for axis in axes(pieces, 64, 4):
        spans = [(at, at + piece.count) for at, piece in axis.pieces]
        assert all(b[0] - a[1] == 4 for a, b in pairwise(spans))
        assert spans[-1][1] <= axis.places <= 64 + 31


def test_buckets_are_few_and_close() -> None:
    sizes = {bucket(n) for n in range(1, 16_385)}
    assert len(sizes) < 200
    assert all(n <= bucket(n) <= max(n + 31, 1.04 * n) for n in range(1, 16_385))
    assert all(size % 32 == 0 and bucket(size) == size for size in sizes)


def test_cuda_without_a_gpu_says_what_is_missing() -> None:
    device = "cuda:999" if torch.cuda.is_available() else "cuda"
    with pytest.raises(EngineError, match=r"device='cuda.*cpu' needs no GPU"):
        Vocoder.load(device=device)
