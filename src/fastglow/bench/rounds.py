"""Interleaved timing: A B C D, A B C D, …, so that the machine's noise hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Call = Callable[[], object]
Clock = Callable[[Call], float]
Name = TypeVar("Name", bound=Hashable)

LEAST_SECONDS = 1.0  # of each candidate, so that short calls are repeated more often
MOST = 10  # times the rounds asked for, however short the calls


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


def host_clock(call: Call) -> float:
    """Seconds of one call that returns when its work is done."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def interleave(
    calls: Mapping[Name, Call],
    runs: int,
    clock: Clock = host_clock,
    *,
    settle: float = 0.0,
    tick: Callable[[], object] = lambda: None,
) -> dict[Name, Timing]:
    """Time every call once a round, after a warm-up round.

    Args:
        calls: What to time, by name.
        runs: Rounds that count; more, up to ten times as many, until the shortest call has been
            timed for a second.
        clock: Seconds of one call.
        settle: Seconds of rest before each call.
        tick: Told after each of the first ``runs`` rounds.

    Returns:
        A timing for each name.
    """
    for call in calls.values():
        clock(call)
    seconds: dict[Name, list[float]] = {name: [] for name in calls}
    turn = 0
    while turn < runs or (
        turn < MOST * runs and any(sum(spent) < LEAST_SECONDS for spent in seconds.values())
    ):
        for name, call in calls.items():
            time.sleep(settle)
            seconds[name].append(clock(call))
        turn += 1
        if turn <= runs:
            tick()
    return {name: Timing(np.array(spent)) for name, spent in seconds.items()}
