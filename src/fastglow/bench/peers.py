"""Who the peers are, and which of them can run here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastglow.errors import InputError

if TYPE_CHECKING:
    from fastglow.bench.candidates import Candidate, Shape

INSTALL = {"cpu": "pip install 'fastglow[bench]'", "cuda": "pip install 'fastglow[cuda]'"}


@dataclass(frozen=True, slots=True)
class Peer:
    """Another program that computes the same audio.

    Attributes:
        key: Its name on the command line.
        precision: Of its products.
        modules: What must be installed for it, beside PyTorch.
        build: Loads it for one shape.
    """

    key: str
    precision: str
    modules: tuple[str, ...]
    build: Callable[[Shape], Candidate]


def known(device: str) -> tuple[Peer, ...]:
    """Every peer on a device, in the order of the tables."""
    if device == "cuda":
        from fastglow.bench import cuda_peers

        return cuda_peers.PEERS
    from fastglow.bench import cpu_peers

    return cpu_peers.PEERS


def obstacle(peer: Peer, device: str) -> str | None:
    """Why a peer cannot run here; None if it can."""
    absent = [name for name in peer.modules if importlib.util.find_spec(name) is None]
    if absent:
        return f"{' and '.join(absent)} not installed: {INSTALL[device]}"
    if device == "cpu" and peer.precision == "bf16":
        from fastglow.engines.cpu.jit import host

        if "bf16" not in host().precisions:
            return "this processor has no AVX-512 BF16"
    return None


def choose(wanted: str, device: str) -> tuple[list[Peer], list[str]]:
    """The peers meant by "all", "none" or names with commas between them.

    Returns:
        Those that can run, and for "all" a line on each that cannot.

    Raises:
        InputError: A name is unknown, or a peer that was named cannot run here.
    """
    peers = {peer.key: peer for peer in known(device)}
    if wanted == "none":
        return [], []
    names = list(peers) if wanted == "all" else [name.strip() for name in wanted.split(",")]
    unknown = [name for name in names if name not in peers]
    if unknown:
        raise InputError(
            f"--peers {', '.join(unknown)}: no such peer on {device}; "
            f"expected all, none or some of {', '.join(peers)}"
        )
    hindered = {name: why for name in names if (why := obstacle(peers[name], device))}
    if hindered and wanted != "all":
        raise InputError("; ".join(f"--peers {name}: {why}" for name, why in hindered.items()))
    notes = [f"{name} left out: {why}" for name, why in hindered.items()]
    return [peers[name] for name in dict.fromkeys(names) if name not in hindered], notes
