"""The processes of a run, one a device: alone, or started by torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fastglow.errors import InputError


@dataclass(frozen=True, slots=True)
class Team:
    """This process among the others.

    Attributes:
        device: Where it computes.
        rank: Of this process; 0 is the one that writes.
        world: Processes.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set anywhere; every process must ask."""
        if self.world == 1:
            return flag
        flags = torch.tensor(int(flag), device=self.device)
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        return bool(flags)

    def align(self, *tensors: Tensor) -> None:
        """Give every process the leader's values."""
        if self.world > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0)


@contextmanager
def joined(device: str) -> Iterator[Team]:
    """The team that torchrun's variables (RANK, LOCAL_RANK, WORLD_SIZE) describe, else this one.

    Args:
        device: "auto", "cpu", "cuda" or, alone, "cuda:N".

    Raises:
        InputError: The device is unknown or not there.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    place = _device(device, int(os.environ.get("LOCAL_RANK", "0")) if world > 1 else None)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if world == 1:
        yield Team(place)
        return
    torch.distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Team(place, rank, world)
    finally:
        torch.distributed.destroy_process_group()


def _device(name: str, local: int | None) -> torch.device:
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdigit())):
        raise InputError(f"device {name!r}; expected auto, cpu, cuda or cuda:N")
    found = torch.cuda.device_count()
    if kind == "cpu" or (kind == "auto" and not found):
        return torch.device("cpu")
    number = int(index or 0) if local is None else local
    if number >= found:
        raise InputError(f"device cuda:{number}: PyTorch finds {found} GPUs")
    return torch.device("cuda", number)
