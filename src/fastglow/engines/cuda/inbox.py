"""What calls bring to the device, each in one copy from page-locked memory.

The host's side is numpy's: PyTorch would share out copies of some 100 KB among all cores, which
made pushes of 128 frames and more up to 60 ms slower (32 cores).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGN = 256  # bytes, between fields
SLOTS = 8  # requests on their way at once


class Mark:
    """A place in the device's queue that the host can wait for; without a GPU nothing waits."""

    def __init__(self, device: torch.device) -> None:
        """Nowhere: not waited for.

        Args:
            device: Whose queue.
        """
        on_gpu = device.type == "cuda"
        self._device = device
        self._event = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]

    def record(self) -> None:
        """Stand behind all that was launched so far."""
        if self._event:
            self._event.record(torch.cuda.current_stream(self._device))

    def wait(self) -> None:
        """Until the device has come here."""
        if self._event:
            self._event.synchronize()

    def hold(self) -> None:
        """Have what is launched from now on, on whatever stream, wait for it."""
        if self._event:
            self._event.wait(torch.cuda.current_stream(self._device))


class Inbox:
    """Arrays on the host and their likes on the device.

    Attributes:
        host: By name, in page-locked memory where there is a GPU.
        device: By name, as they were last sent.
    """

    def __init__(
        self, fields: Mapping[str, tuple[tuple[int, ...], torch.dtype]], device: torch.device
    ) -> None:
        """Zeros.

        Args:
            fields: Shape and type of each.
            device: Where to send them.
        """
        sizes = {
            name: int(np.prod(shape)) * dtype.itemsize for name, (shape, dtype) in fields.items()
        }
        total = sum(-(-size // ALIGN) * ALIGN for size in sizes.values())
        self._host = torch.zeros(total, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._device = torch.zeros(total, dtype=torch.uint8, device=device)
        self._sent = Mark(device)
        self.host: dict[str, NDArray[Any]] = {}
        self.device: dict[str, Tensor] = {}
        at = 0
        for name, (shape, dtype) in fields.items():
            ours, theirs = (
                memory[at : at + sizes[name]].view(dtype).view(shape)
                for memory in (self._host, self._device)
            )
            self.host[name], self.device[name] = ours.numpy(), theirs
            at += -(-sizes[name] // ALIGN) * ALIGN

    def send(self) -> None:
        """Copy all; the host's must not change before :meth:`wait`."""
        self._device.copy_(self._host, non_blocking=True)
        self._sent.record()

    def wait(self) -> None:
        """Until what was sent has arrived."""
        self._sent.wait()


class Requests:
    """The last few requests, so that a call need not wait for the one before it."""

    def __init__(self, device: torch.device) -> None:
        """None yet.

        Args:
            device: Where to send them.
        """
        self._device = device
        self._slots = [torch.empty(0, dtype=torch.int64)] * SLOTS
        self._sent = [Mark(device) for _ in range(SLOTS)]
        self._next = 0

    def send(self, request: NDArray[np.int64], to: Tensor) -> None:
        """Copy it to the beginning of ``to``, behind all that was launched so far."""
        i, count = self._next, len(request)
        self._next = (i + 1) % SLOTS
        self._sent[i].wait()
        if len(self._slots[i]) < count:
            pinned = self._device.type == "cuda"
            self._slots[i] = torch.empty(2 * count, dtype=torch.int64, pin_memory=pinned)
        slot = self._slots[i][:count]
        slot.numpy()[:] = request
        to[:count].copy_(slot, non_blocking=True)
        self._sent[i].record()
