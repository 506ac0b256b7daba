"""Interleaved timing: A B C D, A B C D, …, so that the machine's noise hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SETTLE = 0.05  # seconds between two runs: a runtime's threads may still spin when it returns


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each counted run of one candidate, in order of the rounds."""

    seconds: NDArray[np.float64]

    def quantile(self, q: float) -> float:
        """The q-quantile in seconds, interpolated."""
        return float(np.quantile(self.seconds, q))

    def speedup_over(self, other: Timing) -> float:
        """The median over rounds of ``other``'s seconds divided by ours."""
        return float(np.median(other.seconds / self.seconds))


def interleave(
    calls: Mapping[str, Callable[[], object]],
    runs: int,
    warm_up: int = 1,
    tick: Callable[[int], object] = lambda done: None,
) -> dict[str, Timing]:
    """Time every call once a round.

    Args:
        calls: What to time, by name.
        runs: Rounds that count.
        warm_up: Rounds before them that do not.
        tick: Told after each round how many are done.

    Returns:
        A timing for each name.
    """
    seconds = {name: np.zeros(runs) for name in calls}
    for turn in range(-warm_up, runs):
        for name, call in calls.items():
            time.sleep(SETTLE)
            begin = time.perf_counter()
            call()
            spent = time.perf_counter() - begin
            if turn >= 0:
                seconds[name][turn] = spent
        tick(turn + warm_up + 1)
    return {name: Timing(values) for name, values in seconds.items()}
