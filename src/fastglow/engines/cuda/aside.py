"""Copies between host and device beside what is computed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Aside:
    """A queue of the device's own for copies, which so wait for nothing that is computed.

    In the queue of the computing, a copy comes behind another thread's call, and the call after
    that behind the copy: with calls launched ahead, 4 % of a corpus's time (256 channels, H100).
    """

    def __init__(self, device: torch.device) -> None:
        """Empty.

        Args:
            device: Whose queue.
        """
        on_gpu = device.type == "cuda"
        self._device = device
        self._stream = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]

    def give(self, *arrays: NDArray[Any]) -> list[Tensor]:
        """The arrays on the device; returns when they are there."""
        with self._queue():
            return [torch.from_numpy(np.ascontiguousarray(a)).to(self._device) for a in arrays]

    def fetch(self, found: Tensor) -> NDArray[Any]:
        """A tensor that has been computed, in the host's memory."""
        if self._stream is None:
            return found.numpy()
        with self._queue():  # through page-locked memory: 4 % more of that time
            host = torch.empty_like(found, device="cpu", pin_memory=True)
            host.copy_(found, non_blocking=True)
            self._stream.synchronize()
        return host.numpy().copy()  # callers may keep it, and page-locked memory is short

    def _queue(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()
