"""Many files: read ahead, computed together, written behind; one that is bad stops no other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from fastglow.errors import FastglowError, OutputError

Task = TypeVar("Task")
Written = TypeVar("Written")

READERS, WRITERS = 4, 4  # threads; reading a mel of 6 s takes 2 ms, writing its audio 1
AHEAD, BEHIND = 32, 32  # files read and not computed, computed and not written
PADDED = 4  # times the frames computed together: how large the padded batch of them may be


class Mel(Protocol):
    """Of shape [n_mel, frames], held or on disk."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Task, Written]):
    """What became of a task.

    Attributes:
        task: The caller's.
        written: What writing it gave; None if it failed.
        error: Why it failed.
        seconds: Of computing, its share of what was computed together.
        worker: Who computed it, where there are several.
    """

    task: Task
    written: Written | None = None
    error: FastglowError | None = None
    seconds: float = 0.0
    worker: str = ""


Group = list[tuple[Task, Mel]]  # what is computed together
Audio = tuple[Task, Any, float]  # and what came out, with the seconds that it took


class Corpus(Generic[Task, Written]):
    """How every file of a corpus is treated.

    Args:
        read: A task's mel [n_mel, frames]; runs in a thread.
        synthesize: What to write of each of several mels.
        write: Writes that; runs in a thread.
        frames: How many frames are computed together, a longer file alone.
        ahead: How many files may be read before they are computed.
        alone: Computes and writes a task whose audio is too long to be held; None if it is not.
        together: Groups computed at a time, in threads if more than one: where a device computes,
            what the processor does for one hides behind the other.
    """

    def __init__(
        self,
        read: Callable[[Task], Mel],
        synthesize: Callable[[Sequence[Mel]], Sequence[Any]],
        write: Callable[[Task, Any], Written],
        frames: int,
        ahead: int = AHEAD,
        alone: Callable[[Task, Any], Written | None] = lambda task, mel: None,
        together: int = 1,
    ) -> None:
        self._together, self._ended = together, 0.0
        self._read, self._synthesize, self._write, self._alone = read, synthesize, write, alone
        self._frames, self._ahead = frames, ahead

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome[Task, Written]]:
        """Every task's outcome as it becomes known; what is under way at the end is written.

        Raises:
            OutputError: The place for outputs takes no more; what was written before is whole.
        """
        writing: deque[tuple[Task, float, Future[Written]]] = deque()
        with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(WRITERS) as writers:
            try:
                for item in self._computed(self._groups(iter(tasks), readers)):
                    if isinstance(item, Outcome):
                        yield item
                        if isinstance(item.error, OutputError):
                            raise item.error
                        continue
                    task, audio, seconds = item
                    writing.append((task, seconds, writers.submit(self._write, task, audio)))
                    while writing and (len(writing) > BEHIND or writing[0][2].done()):
                        yield (last := _outcome(*writing.popleft()))
                        if isinstance(last.error, OutputError):
                            raise last.error
                yield from _rest(writing)
            except OutputError:
                writers.shutdown(cancel_futures=True)
                yield from _rest(writing, stopped=True)
                raise
            finally:
                readers.shutdown(cancel_futures=True)
                writers.shutdown()

    def _computed(
        self, groups: Iterator[Group[Task] | Outcome[Task, Written]]
    ) -> Iterator[Audio[Task] | Outcome[Task, Written]]:
        """Each task's audio, or its outcome if it failed, in order."""
        if self._together == 1:
            for group in groups:
                yield from [group] if isinstance(group, Outcome) else self._compute(group)
            return
        under_way: deque[Future[list[Audio[Task] | Outcome[Task, Written]]]] = deque()
        with ThreadPoolExecutor(self._together) as pool:
            try:
                for group in groups:
                    single = isinstance(group, Outcome) or len(group) == 1
                    while under_way and (single or len(under_way) == self._together):
                        yield from under_way.popleft().result()
                    if isinstance(group, Outcome):
                        yield group
                    elif single:  # here, because it may take long and be interrupted
                        yield from self._compute(group)
                    else:
                        under_way.append(pool.submit(lambda g: list(self._compute(g)), group))
                while under_way:
                    yield from under_way.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _groups(
        self, tasks: Iterator[Task], readers: ThreadPoolExecutor
    ) -> Iterator[Group[Task] | Outcome[Task, Written]]:
        """Tasks with their mels, as many as are computed together; what cannot be read at once."""
        reading: deque[tuple[Task, Future[Mel]]] = deque()
        group: Group[Task] = []
        total = longest = 0
        while True:
            while len(reading) < self._ahead and (task := next(tasks, None)) is not None:
                reading.append((task, readers.submit(self._read, task)))
            if not reading:
                break
            task, future = reading.popleft()
            try:
                mel = future.result()
            except FastglowError as error:
                yield Outcome(task, error=error)
                continue
            padded = (len(group) + 1) * max(longest, mel.shape[1])
            if group and (total + mel.shape[1] > self._frames or padded > PADDED * self._frames):
                yield group
                group, total, longest = [], 0, 0
            group.append((task, mel))
            total, longest = total + mel.shape[1], max(longest, mel.shape[1])
        if group:
            yield group

    def _compute(self, group: Group[Task]) -> Iterator[Audio[Task] | Outcome[Task, Written]]:
        """Each task's audio, and the seconds it took; or its outcome, if it failed."""
        began = time.perf_counter()
        try:
            if len(group) == 1 and (written := self._alone(*group[0])) is not None:
                yield Outcome(group[0][0], written, seconds=time.perf_counter() - began)
                return
            audios = self._synthesize([mel for _, mel in group])
        except FastglowError as error:
            if len(group) == 1:
                yield Outcome(group[0][0], error=error)
                return
            for item in group:  # whose fault it was
                yield from self._compute([item])
            return
        ended = time.perf_counter()  # groups side by side: each from the end of the one before it
        began, self._ended = max(began, self._ended), ended
        took = (ended - began) / sum(mel.shape[1] for _, mel in group)
        for (task, mel), audio in zip(group, audios, strict=True):
            yield task, audio, took * mel.shape[1]


def _outcome(task: Task, seconds: float, future: Future[Written]) -> Outcome[Task, Written]:
    try:
        return Outcome(task, written=future.result(), seconds=seconds)
    except FastglowError as error:
        return Outcome(task, error=error)


def _rest(
    writing: deque[tuple[Task, float, Future[Written]]], stopped: bool = False
) -> Iterator[Outcome[Task, Written]]:
    """What is still being written; the first error that concerns all is raised after the rest."""
    first: OutputError | None = None
    while writing:
        task, seconds, future = writing.popleft()
        if not future.cancelled():
            outcome = _outcome(task, seconds, future)
            yield outcome
            if isinstance(outcome.error, OutputError):
                first = first or outcome.error
    if first and not stopped:
        raise first
