"""Calls of several threads on one CUDA engine: launched in turn, waited for apart."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from fastglow.config import WNConfig
from fastglow.engines.cuda.inbox import Mark
from fastglow.engines.cuda.turns import Slip
from fastglow.errors import EngineError

import interpreter
from cuda_engines import engine
from models import TINY

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="Triton is not installed")
if not torch.cuda.is_available():
    interpreter.install()

SMALL = replace(
    TINY, hop_length=16, upsample_kernel=64, n_flows=3, wn=WNConfig(n_layers=1, n_channels=16)
)


@pytest.mark.filterwarnings("ignore:invalid value")  # the interpreter's numpy
@pytest.mark.parametrize("bad", ["neither", "first", "second"])
def test_a_call_runs_while_another_waits_and_each_hears_of_its_own_fault(
    bad: str, device: str
) -> None:
    found = engine(SMALL, device)
    mel = torch.zeros(1, 8, 2, device=device)
    good = torch.full((1, SMALL.samples(2)), 0.5, device=device)
    noises = {name: good * torch.nan if bad == name else good for name in ("first", "second")}
    expected = found.infer_device(mel, good, [2])
    waiting, ended = threading.Event(), threading.Event()

    class Held(Mark):
        def wait(self) -> None:
            waiting.set()
            assert ended.wait(60), "the second call waits for the first"
            super().wait()

    slip = Slip(found._device)
    slip.done = Held(found._device)
    found._turns._free = [slip]  # the next call's

    def call(name: str) -> bool:
        try:
            return torch.equal(found.infer_device(mel, noises[name], [2]), expected)
        except EngineError:
            return False

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(call, "first")
        assert waiting.wait(60)
        assert call("second") == (bad != "second")
        ended.set()
        assert first.result() == (bad != "first")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_threads_on_streams_of_their_own_share_an_engine_bit_for_bit() -> None:
    found = engine(replace(TINY, wn=WNConfig(n_layers=4, n_channels=64)), "cuda", "fp16")
    frames = (3, 40, 200, 900)
    mels = [torch.randn(1, 8, n, device="cuda") for n in frames]
    noises = [torch.randn(1, found.config.samples(n), device="cuda") for n in frames]
    alone = [found.infer_device(mels[j], noises[j], [frames[j]]) for j in range(len(frames))]
    torch.cuda.synchronize()

    def wrong(k: int) -> int:
        count = 0
        with torch.cuda.stream(torch.cuda.Stream()):
            for i in range(100):
                j = (i * (k + 1) + k) % len(frames)
                heard = found.infer_device(mels[j], noises[j], [frames[j]], check=i % 3 > 0)
                count += not torch.equal(heard, alone[j])
        return count

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(wrong, range(4))) == [0, 0, 0, 0]
