"""Whose turn it is on an engine, whose calls share buffers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from fastglow.engines.base import NOT_FINITE
from fastglow.engines.cuda.checks import explained
from fastglow.engines.cuda.inbox import Mark
from fastglow.errors import EngineError


class Slip:
    """What a call leaves for its caller.

    Attributes:
        call: Its number, which no earlier call of the engine had.
        done: Behind its launches.
        flag: [1] int64, page-locked, so that no copy brings it: the number of the last call that
            was not finite.
    """

    def __init__(self, device: torch.device) -> None:
        """Of no call yet.

        Args:
            device: Where calls run.
        """
        self.call, self.done = 0, Mark(device)
        self.flag = torch.zeros(1, dtype=torch.int64, pin_memory=device.type == "cuda")


class Turns:
    """Lets one caller launch at a time, behind what was launched before, on whatever stream.

    Callers of :meth:`CudaEngine.infer` wait for their own results outside of their turn, so that a
    call is launched while the one before it runs.
    """

    def __init__(self, device: torch.device) -> None:
        """Nobody's turn; the first comes behind what was launched before this.

        Args:
            device: Where calls run.
        """
        self._device, self._lock, self._calls = device, threading.Lock(), 0
        self._launched = Mark(device)  # behind the last turn
        self._launched.record()
        self._unread = Slip(device)
        self._free: list[Slip] = []

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The caller's turn; the engine's GPU is the one that kernels are launched on."""
        with self._lock, torch.no_grad(), self._here(), explained():
            self._launched.hold()
            try:
                yield
            finally:
                self._launched.record()

    def slip(self, read: bool) -> Slip:
        """For a call of this turn.

        Args:
            read: :meth:`read` will be called; otherwise nobody may look at it.
        """
        slip = self._unread
        if read:
            slip = self._free.pop() if self._free else Slip(self._device)
        self._calls += 1
        slip.call = self._calls
        return slip

    def read(self, slip: Slip) -> None:
        """Wait for a call; its slip is another's then.

        Raises:
            EngineError: Its audio is not finite.
        """
        slip.done.wait()
        bad = slip.flag.item() == slip.call
        self._free.append(slip)
        if bad:
            raise EngineError(NOT_FINITE)

    def _here(self) -> AbstractContextManager[Any]:
        if self._device.type == "cuda":
            return torch.cuda.device(self._device)
        return nullcontext()
