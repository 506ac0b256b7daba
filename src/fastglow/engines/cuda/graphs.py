"""The passes of an engine, one a bucket of lengths, as CUDA graphs where wanted."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

import torch

from fastglow.engines.cuda.layers import Call

KEPT = 16  # the least recently used goes first; more than inbox.SLOTS, so that it cannot still run
# One capture at a time in a process: they share a device's stream for it, and waiting for the whole
# device, as each does first, ends another's.
_CAPTURE = threading.Lock()
_STREAMS: dict[torch.device, torch.cuda.Stream] = {}  # PyTorch's own is of the device met first


class Passes:
    """What each bucket works on, and what runs all launches on it."""

    def __init__(self, device: torch.device, graphs: bool) -> None:
        """Hold none yet.

        Args:
            device: Of what they work on.
            graphs: Capture the launches; else they are launched one by one.
        """
        self._device, self._graphs = device, graphs
        self._kept: OrderedDict[Hashable, tuple[Any, Call]] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def add(self, key: Hashable, buffers: Any, calls: Sequence[Call]) -> None:
        """A new bucket and its launches."""
        run = _Captured(calls, self._device) if self._graphs else partial(_launch, calls)
        self._kept[key] = (buffers, run)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def get(self, key: Hashable) -> tuple[Any, Call]:
        """What a bucket works on, and what runs its launches."""
        self._kept.move_to_end(key)
        return self._kept[key]

    def clear(self) -> None:
        """Forget all, and with them the buffers' memory."""
        if self._device.type == "cuda":
            with _CAPTURE:
                torch.cuda.synchronize(self._device)  # no graph may go while it runs
        self._kept.clear()


class _Captured:
    """Launches one by one the first time, so that nothing compiles in the graph; then as one."""

    def __init__(self, calls: Sequence[Call], device: torch.device) -> None:
        self._calls, self._device = calls, device
        self._graph: Any = None

    def __call__(self) -> None:
        if self._graph is not None:
            self._graph.replay()
            return
        _launch(self._calls)
        with _CAPTURE:
            torch.cuda.synchronize(self._device)
            graph = torch.cuda.CUDAGraph()
            # thread_local: another thread's copies to and from the device break no capture
            with torch.cuda.graph(
                graph, stream=_stream(self._device), capture_error_mode="thread_local"
            ):
                _launch(self._calls)
            self._graph = graph


def _stream(device: torch.device) -> torch.cuda.Stream:
    """Where a device's graphs are captured."""
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _STREAMS[device]


def _launch(calls: Sequence[Call]) -> None:
    for call in calls:
        call()
