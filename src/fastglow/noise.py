"""Audio-shaped Gaussian noise: sample n depends on (seed, n) alone.

Philox 4x32-10 keyed by the 64-bit seed turns counter n // 4 into four 32-bit integers, lane
n % 4 of which makes normal n: lanes 0 and 1 are the cosine and sine of one Box-Muller pair,
lanes 2 and 3 of another. The integers are equal on every device; the normals agree to 1e-6.

Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC11).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastglow.errors import InputError

Float32 = NDArray[np.float32]
UInt32 = NDArray[np.uint32]

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_BLOCK = 1 << 18  # samples at a time: the temporaries stay in the cache


def philox(counter: UInt32, key: tuple[int, int]) -> UInt32:
    """Philox 4x32-10: counters [4, n] uint32 under a two-word key to integers [4, n]."""
    c0, c1, c2, c3 = (word.astype(np.uint64) for word in counter)
    k0, k1 = key
    for _ in range(ROUNDS):
        first = c0 * np.uint64(MULTIPLIERS[0])
        second = c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (
            (second >> _SHIFT) ^ c1 ^ np.uint64(k0),
            second & _LOW,
            (first >> _SHIFT) ^ c3 ^ np.uint64(k1),
            first & _LOW,
        )
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def integers(seed: int, first: int, count: int) -> UInt32:
    """The integers [4, count] of counters ``first`` to ``first + count - 1``."""
    key = check_seed(seed)
    index = np.arange(first, first + count, dtype=np.uint64)
    counter = np.zeros((4, count), dtype=np.uint32)
    counter[0], counter[1] = index & _LOW, index >> _SHIFT
    return philox(counter, (key & 0xFFFFFFFF, key >> 32))


def normal(seed: int, samples: int, start: int = 0) -> Float32:
    """Standard-normal noise for the audio samples ``start`` to ``start + samples - 1``.

    Args:
        seed: 0 to 2**64 - 1.
        samples: How many.
        start: Absolute index of the first.

    Returns:
        [samples] float32.

    Raises:
        InputError: The seed is no integer of 64 bits.
    """
    check_seed(seed)
    out = np.empty(samples, dtype=np.float32)
    for at in range(0, samples, _BLOCK):
        count = min(_BLOCK, samples - at)
        low = (start + at) // 4
        high = (start + at + count + 3) // 4
        pairs = _box_muller(integers(seed, low, high - low))
        offset = start + at - 4 * low
        out[at : at + count] = pairs.T.reshape(-1)[offset : offset + count]
    return out


@dataclass(frozen=True, slots=True)
class SeededNoise:
    """Noise that nobody has drawn yet: an engine draws it where it needs it.

    Sample n of row b is ``sigma * normal(seeds[b])[start + n]``.

    Attributes:
        seeds: One a row, 0 to 2**64 - 1.
        sigma: Scale.
        start: Absolute index of each row's first sample.
    """

    seeds: tuple[int, ...]
    sigma: float
    start: int = 0

    def draw(self, counts: Sequence[int], samples: int) -> Float32:
        """The noise as an array [B, samples], each row zero past its count."""
        made: dict[int, Float32] = {}
        out = np.zeros((len(self.seeds), samples), dtype=np.float32)
        for row, (seed, count) in enumerate(zip(self.seeds, counts, strict=True)):
            if seed not in made:
                made[seed] = np.float32(self.sigma) * normal(seed, max(counts), self.start)
            out[row, :count] = made[seed][:count]
        return out


def _box_muller(bits: UInt32) -> Float32:
    """Normals [4, n] from integers [4, n]: u = (bits + 0.5) / 2**32 keeps log(u) finite."""
    radius = np.sqrt(-2.0 * np.log((bits[0::2].astype(np.float64) + 0.5) * 2.0**-32))
    angle = bits[1::2].astype(np.float64) * (2.0 * np.pi * 2.0**-32)
    out = np.empty(bits.shape, dtype=np.float32)
    out[0::2], out[1::2] = radius * np.cos(angle), radius * np.sin(angle)
    return out


def check_seed(seed: int) -> int:
    """The seed as a plain integer.

    Raises:
        InputError: It is no integer of 64 bits.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise InputError(f"the seed must be an integer, not {type(seed).__name__}")
    if not 0 <= int(seed) < 2**64:
        raise InputError(f"the seed {seed} is outside 0 to 2**64 - 1")
    return int(seed)
