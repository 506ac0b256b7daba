"""Calls of several threads on one CUDA engine: launched in turn, waited for apart."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from fastglow.config import WNConfig
from fastglow.engines.cuda.inbox import Mark
from fastglow.engines.cuda.pieces import bucket
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
@pytest.mark.parametrize("bad", [(), ("first",), ("second",), ("first", "second")])
def test_a_call_runs_while_another_waits_and_each_hears_of_its_own_fault(
    bad: tuple[str, ...], device: str
) -> None:
    found = engine(SMALL, device)
    mel = torch.zeros(1, 8, 2, device=device)
    good = torch.full((1, SMALL.samples(2)), 0.5, device=device)
    noises = {name: good * torch.nan if name in bad else good for name in ("first", "second")}
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

    def call(name: str) -> bool | None:
        """Whether it gives the right audio; None: it raises."""
        try:
            return torch.equal(found.infer_device(mel, noises[name], [2]), expected)
        except EngineError:
            return None

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(call, "first")
        assert waiting.wait(60)
        second = call("second")
        ended.set()
    outcomes = {"first": first.result(), "second": second}
    assert outcomes == {name: None if name in bad else True for name in outcomes}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_threads_on_streams_of_their_own_share_an_engine_bit_for_bit() -> None:
    """With more lengths than there are graphs and layouts kept, so that all come and go."""
    from fastglow.engines.cuda.graphs import KEPT  # these import Triton
    from fastglow.engines.cuda.workspace import LAYOUTS

    found = engine(replace(TINY, wn=WNConfig(n_layers=4, n_channels=64)), "cuda", "fp16")
    lengths = [3 + 33 * j for j in range(LAYOUTS + 6)]
    assert len({bucket(n) for n in lengths}) > KEPT
    mels, noises = (
        [torch.randn(1, *size(n), device="cuda") for n in lengths]
        for size in (lambda n: (8, n), lambda n: (found.config.samples(n),))
    )
    given = [(mels[j], noises[j], [lengths[j]]) for j in range(len(lengths))]
    alone = [found.infer_device(*each) for each in given]
    torch.cuda.synchronize()

    def wrong(k: int) -> int:
        count = 0
        with torch.cuda.stream(torch.cuda.Stream()):
            for i in range(100):
                j = (7 * i * (k + 1) + k) % (len(given) if i % 4 == 0 else 5)
                if i % 3:
                    heard = found.infer_device(*given[j], check=i % 3 == 1)
                else:
                    mel, noise, frames = given[j]
                    audio = found.infer(mel.cpu().numpy(), noise.cpu().numpy(), frames)
                    heard = torch.from_numpy(audio).cuda()
                count += not torch.equal(heard, alone[j])
        return count

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(wrong, range(4))) == [0, 0, 0, 0]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second GPU")
def test_engines_on_two_gpus_in_one_process() -> None:
    config = replace(TINY, wn=WNConfig(n_layers=4, n_channels=64))
    heard = []
    for device in ("cuda:0", "cuda:1", "cuda:0", "cuda:1"):
        found = engine(config, device, "fp16")
        generator = torch.Generator().manual_seed(0)
        mel = torch.randn(1, 8, 90, generator=generator).to(device)
        noise = torch.randn(1, config.samples(90), generator=generator).to(device)
        heard += [found.infer_device(mel, noise, [90]).cpu() for _ in range(3)]
    assert all(torch.equal(heard[0], other) for other in heard)
