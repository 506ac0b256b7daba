"""The pipeline over many files: what is computed together, what a failure touches, what is held."""

import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from fastglow.corpus import AHEAD, BEHIND, PADDED, Corpus, Outcome
from fastglow.errors import EngineError, InputError, OutputError

LENGTHS = [5, 3, 9, 1, 30, 2, 2, 2, 40, 4]  # frames of task i


class Files:
    """Mels in which every number is the task's; the audio of a mel repeats it."""

    def __init__(self, bad: dict[int, tuple[str, Exception]] | None = None) -> None:
        self.bad = bad or {}
        self.written: dict[int, np.ndarray] = {}
        self.groups: list[list[int]] = []
        self.read_so_far = 0

    def read(self, task: int) -> np.ndarray:
        self.read_so_far += 1
        self._fail(task, "read")
        return np.full((2, LENGTHS[task % len(LENGTHS)]), task, dtype=np.float32)

    def synthesize(self, mels: Sequence[np.ndarray]) -> list[np.ndarray]:
        for mel in mels:
            self._fail(int(mel[0, 0]), "synthesize")
        self.groups.append([mel.shape[1] for mel in mels])
        return [np.repeat(mel[0], 4) for mel in mels]

    def write(self, task: int, audio: np.ndarray) -> int:
        self._fail(task, "write")
        self.written[task] = audio
        return task

    def _fail(self, task: int, where: str) -> None:
        stage, error = self.bad.get(task, ("", None))
        if stage == where and error:
            raise error

    def run(self, tasks: range, frames: int = 10, together: int = 1) -> list[Outcome[int, int]]:
        corpus = Corpus(self.read, self.synthesize, self.write, frames, together=together)
        return list(corpus.run(tasks))


@pytest.mark.parametrize("together", [1, 2])
def test_every_task_gets_its_own_audio(together: int) -> None:
    files = Files()
    outcomes = files.run(range(50), together=together)
    assert sorted(outcome.task for outcome in outcomes) == list(range(50))
    assert all(o.written == o.task and o.error is None and o.seconds >= 0 for o in outcomes)
    for task, audio in files.written.items():
        assert np.array_equal(audio, np.full(4 * LENGTHS[task % len(LENGTHS)], task))


def test_as_many_frames_are_computed_together_as_wanted_and_a_long_file_alone() -> None:
    files = Files()
    files.run(range(10))
    assert files.groups == [[5, 3], [9, 1], [30], [2, 2, 2], [40], [4]]


def test_a_long_file_among_many_short_ones_makes_no_large_padded_batch() -> None:
    files = Files()
    list(Corpus(files.read, files.synthesize, files.write, 20).run([2] + 9 * [3]))
    assert files.groups == [[9, *7 * [1]], [1, 1]]  # a ninth row of 9 frames would make 81
    assert 9 * 8 <= PADDED * 20 < 9 * 9


def test_what_is_written_is_told_at_once() -> None:
    told: list[int] = []

    def synthesize(mels: Sequence[np.ndarray]) -> list[np.ndarray]:
        if mels[0][0, 0] == 9:
            limit = time.monotonic() + 5
            while len(files.written) < 8 and time.monotonic() < limit:
                time.sleep(0.001)
            assert len(told) >= 5  # though fewer than BEHIND are under way
        elif mels[0][0, 0] > 0:
            time.sleep(0.01)
        return files.synthesize(mels)

    files = Files()
    for outcome in Corpus(files.read, synthesize, files.write, 1).run(range(10)):
        told.append(outcome.task)
    assert told == list(range(10))


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("stage", ["read", "synthesize", "write"])
def test_a_failure_touches_one_file(stage: str, together: int) -> None:
    error = EngineError("not finite") if stage == "synthesize" else InputError("bad")
    files = Files({6: (stage, error), 7: (stage, error)})
    outcomes = files.run(range(10), together=together)
    assert {o.task: o.error for o in outcomes if o.error} == {6: error, 7: error}
    assert set(files.written) == set(range(10)) - {6, 7}


def test_groups_side_by_side_are_computed_at_once_and_their_seconds_are_not_counted_twice() -> None:
    both = threading.Barrier(2, timeout=20)
    turn = threading.Lock()

    def synthesize(mels: Sequence[np.ndarray]) -> list[np.ndarray]:
        both.wait()  # breaks unless two groups have come
        with turn:
            time.sleep(0.02)
        return files.synthesize(mels)

    files = Files()
    began = time.perf_counter()
    corpus = Corpus(files.read, synthesize, files.write, 10, together=2)
    outcomes = list(corpus.run(range(0, 80, 10)))  # 5 frames each: four groups of two
    assert len(files.groups) == 4
    assert 4 * 0.02 <= sum(o.seconds for o in outcomes) < time.perf_counter() - began


def test_a_full_disk_stops_the_run_and_keeps_what_is_written() -> None:
    before, seen = threading.active_count(), {}
    files = Files({20: ("write", OutputError("no space"))})
    run = Corpus(files.read, files.synthesize, files.write, 10).run(range(10_000))
    with pytest.raises(OutputError, match="no space"):
        seen.update((outcome.task, outcome.written) for outcome in run)
    assert set(range(20)) <= set(files.written)
    assert seen.pop(20) is None
    assert seen == {task: task for task in files.written}  # each is told
    assert files.read_so_far < 20 + 4 * (AHEAD + BEHIND)
    assert threading.active_count() == before


def test_failures_are_told_when_they_are_known() -> None:
    files = Files(dict.fromkeys(range(10_000), ("read", InputError("bad"))))
    run = Corpus(files.read, files.synthesize, files.write, 10).run(range(10_000))
    assert next(run).task == 0
    assert files.read_so_far <= AHEAD + 1
    run.close()  # type: ignore[attr-defined]


def test_little_is_held_of_much() -> None:
    files, before = Files(), threading.active_count()
    run = Corpus(files.read, files.synthesize, files.write, 10).run(iter(range(10_000)))
    for outcome in run:
        ahead = files.read_so_far - outcome.task
        assert ahead <= AHEAD + BEHIND + 2 * 10
        if outcome.task == 500:
            break
    run.close()  # type: ignore[attr-defined]
    assert len(files.written) < 500 + AHEAD + BEHIND + 20
    assert threading.active_count() == before
