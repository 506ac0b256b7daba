"""Seeded damage to files: what a parser must survive."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

HEADER = 4096  # bytes at either end where most of a format's structure lies
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def mutations(data: bytes, seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """``count`` damaged copies of ``data``, each with what was done to it.

    The same arguments give the same copies; ``what`` is enough to find the damage again.
    """
    rng = random.Random(seed)
    for index in range(count):
        damage = rng.choice(DAMAGES)
        what, damaged = damage(data, rng)
        yield f"seed {seed}, case {index}: {what}", damaged


def truncations(data: bytes, step: int = 1) -> Iterator[tuple[str, bytes]]:
    """``data`` cut off after every ``step``-th byte."""
    for size in range(0, len(data), step):
        yield f"cut at {size}", data[:size]


def _place(data: bytes, rng: random.Random) -> int:
    """An offset, as often in the first or last bytes as anywhere."""
    where = rng.randrange(3)
    if where == 0:
        return rng.randrange(min(HEADER, len(data)))
    if where == 1:
        return len(data) - 1 - rng.randrange(min(HEADER, len(data)))
    return rng.randrange(len(data))


def _flip(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    damaged, places = bytearray(data), []
    for _ in range(rng.choice((1, 1, 2, 8))):
        place, bit = _place(data, rng), rng.randrange(8)
        damaged[place] ^= 1 << bit
        places.append((place, bit))
    return f"bits flipped at {places}", bytes(damaged)


def _cut(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    size = _place(data, rng)
    return f"cut at {size}", data[:size]


def _number(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    width, value = rng.choice((1, 2, 4, 8)), rng.choice(EXTREMES)
    order = rng.choice(("little", "big"))
    raw = (value % 256**width).to_bytes(width, order)
    place = _place(data, rng)
    return f"{raw.hex()} at {place}", data[:place] + raw + data[place + width :]


def _noise(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    place, size = _place(data, rng), rng.randrange(1, 65)
    noise = rng.randbytes(size)
    return f"{size} random bytes at {place}", data[:place] + noise + data[place + size :]


def _drop(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    place, size = _place(data, rng), rng.randrange(1, 65)
    return f"{size} bytes dropped at {place}", data[:place] + data[place + size :]


def _repeat(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    place, size = _place(data, rng), rng.randrange(1, 257)
    piece = data[place : place + size]
    return f"{size} bytes repeated at {place}", data[: place + size] + piece + data[place + size :]


def _move(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    source, target, size = _place(data, rng), _place(data, rng), rng.randrange(1, 65)
    piece = data[source : source + size]
    damaged = data[:target] + piece + data[target + len(piece) :]
    return f"{size} bytes copied from {source} to {target}", damaged


DAMAGES: tuple[Callable[[bytes, random.Random], tuple[str, bytes]], ...] = (
    _flip,
    _flip,
    _cut,
    _number,
    _number,
    _noise,
    _drop,
    _repeat,
    _move,
)
