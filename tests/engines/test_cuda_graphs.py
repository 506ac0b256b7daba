"""Capturing passes as CUDA graphs, without a GPU."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from fastglow.engines.cuda import graphs
from fastglow.engines.cuda.graphs import Passes


class Device:
    """As much of ``torch.cuda`` as a capture uses; waiting for the device ends any capture."""

    def __init__(self) -> None:
        self.under_way = 0
        self.spoiled = 0
        self.guard = threading.Lock()

    def synchronize(self, device: object) -> None:
        with self.guard:
            self.spoiled += self.under_way

    @contextmanager
    def graph(self, graph: object, stream: object, capture_error_mode: str):
        with self.guard:
            self.spoiled += self.under_way  # they share a stream
            self.under_way += 1
        yield
        with self.guard:
            self.under_way -= 1

    class CUDAGraph:
        def replay(self) -> None: ...


def test_no_thread_spoils_another_s_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    monkeypatch.setitem(graphs._STREAMS, torch.device("cuda"), None)
    for name in ("synchronize", "graph", "CUDAGraph"):
        monkeypatch.setattr(torch.cuda, name, getattr(device, name))
    launched: list[int] = []

    def work(k: int) -> None:
        passes = Passes(torch.device("cuda"), graphs=True)
        for bucket in range(5):
            passes.add(bucket, None, [lambda: time.sleep(0.002), lambda: launched.append(k)])
            for _ in range(3):  # launched and captured, then replayed
                passes.get(bucket)[1]()
        passes.clear()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert device.spoiled == 0
    assert sorted(launched) == sorted([k for k in range(4) for _ in range(5 * 2)])
