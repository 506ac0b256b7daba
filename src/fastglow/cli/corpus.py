"""What ``fastglow vocode`` does with its files: leave what is done, do the rest, count, tell."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastglow.cli.journal import Journal
from fastglow.cli.progress import Progress
from fastglow.errors import OutputError
from fastglow.fleet import Fleet, parse_devices
from fastglow.job import Done, Facts, Recipe, Run, Task

WARNINGS = 10  # that are shown


@contextmanager
def local(recipe: Recipe) -> Iterator[tuple[Facts, Run]]:
    """The devices of this machine that the recipe names: alone here, several a process each.

    Raises:
        FastglowError: The model cannot be loaded or a device cannot be used.
    """
    devices = parse_devices(recipe.device)
    if len(devices) == 1:
        job = replace(recipe, device=devices[0]).load()
        yield job.facts, job.run
    else:
        # The processes import PyTorch at the same time; here it would come first.
        facts = replace(recipe, device=devices[0]).facts(ask_torch=False)
        yield facts, Fleet(recipe.fixed(facts), devices).run


@contextmanager
def on_ray(recipe: Recipe, address: str | None, workers: int | None) -> Iterator[tuple[Facts, Run]]:
    """A Ray cluster's vocoders.

    Raises:
        FastglowError: Ray is not installed, or the cluster cannot be used.
    """
    from fastglow import ray

    with ray.joined(recipe, address, workers) as cluster:
        yield cluster.facts, cluster.run


@dataclass(slots=True)
class Totals:
    """What a run did.

    Attributes:
        seconds: Of audio.
        computing: Seconds, by worker.
        began: When, as the clock of ``time.perf_counter`` says.
        wall: Seconds until the last file was done; processes take most of a second to end.
    """

    done: int = 0
    skipped: int = 0
    clipped: int = 0
    seconds: float = 0.0
    computing: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    wall: float = 0.0

    @property
    def speed(self) -> float:
        """Seconds of audio a second by the clock."""
        return self.seconds / max(self.wall, 1e-9)

    @property
    def busy(self) -> dict[str, float]:
        """The share of the time that each worker computed."""
        return {name: spent / max(self.wall, 1e-9) for name, spent in self.computing.items()}

    def add(self, outcome: Done, rate: int) -> None:
        """Count one more file."""
        self.wall = time.perf_counter() - self.began
        if outcome.written is None:
            self.failed.append(str(outcome.task.source))
            return
        self.done += 1
        self.clipped += outcome.written.clipped
        self.seconds += outcome.written.samples / rate
        spent = self.computing.get(outcome.worker, 0.0)
        self.computing[outcome.worker] = spent + outcome.seconds

    def record(self) -> dict[str, object]:
        """The figures, by name."""
        return {
            "files": self.done,
            "failed": len(self.failed),
            "skipped": self.skipped,
            "audio_seconds": round(self.seconds, 3),
            "wall_seconds": round(self.wall, 3),
            "times_real_time": round(self.speed, 3),
            "computing_seconds": round(sum(self.computing.values()), 3),
            "busy": {name: round(share, 4) for name, share in self.busy.items()},
        }

    def summary(self, out: Path) -> str:
        """What was done, in a line."""
        parts = [f"{self.done} file{'s' if self.done != 1 else ''}"]
        if self.seconds:
            shares = [f"{100 * share:.0f} %" for share in sorted(self.busy.values())]
            parts += [
                f"{_time(self.seconds)} of audio in {self.wall:.1f} s "
                f"({self.speed:.1f} x real time, RTF {1 / self.speed:.4f})",
                f"computing {' to '.join(dict.fromkeys((shares[0], shares[-1])))} of the time",
            ]
        if self.skipped:
            parts.append(f"{self.skipped} skipped")
        if self.clipped:
            parts.append(f"{self.clipped} samples clipped")
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        return f"{', '.join(parts)} -> {out}"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.4g} h" if seconds >= 600 else f"{seconds:.4g} s"


def vocode_files(
    tasks: Sequence[Task],
    run: Run,
    rate: int,
    *,
    skip_existing: bool,
    journal: Journal | None,
    quiet: bool,
) -> Totals:
    """Vocode every task; what fails is told and counted.

    Args:
        tasks: What to do.
        run: What does it.
        rate: Of the audio, Hz.
        skip_existing: Leave outputs that are there.
        journal: Leave what it says is done; add what becomes of the rest.
        quiet: No progress bar.

    Raises:
        OutputError: The outputs' place takes no more; what was written before is whole.
    """
    todo = [
        task
        for task in tasks
        if not (skip_existing and task.target.exists()) and not (journal and journal.has(task))
    ]
    totals = Totals(skipped=len(tasks) - len(todo))
    with Progress(len(todo), hidden=quiet) as progress:
        warn = _Few(progress.warn)
        try:
            with closing(run(todo, warn)) as outcomes:
                totals.began = time.perf_counter()  # several processes have loaded only now
                for outcome in outcomes:
                    if journal:
                        journal.tell(outcome)
                    totals.add(outcome, rate)
                    _tell(outcome, progress.error, warn)
                    progress.advance(f"{totals.speed:.1f} x real time")
        except OutputError as error:
            raise OutputError(f"{error}; {totals.done} files written before are whole") from None
        except KeyboardInterrupt:
            progress.error(f"interrupted; {totals.done} files written so far are whole")
            raise
        finally:
            warn.end()
    if journal:
        journal.end(totals.record())
    return totals


def _tell(outcome: Done, fail: Callable[[str], None], warn: Callable[[str], None]) -> None:
    """Tell the user of what failed or was clipped."""
    task, written = outcome.task, outcome.written
    if written and written.clipped:
        warn(f"{task.target}: {written.clipped} samples over full scale were clipped")
    if written or isinstance(outcome.error, OutputError):
        return  # the latter ends the run and is told once
    message = str(outcome.error)
    known = str(task.source) in message or str(task.target) in message
    fail(message if known else f"{task.source}: {message}")


class _Few:
    """Passes the first warnings on: a corpus made in one wrong way would give one a file."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn, self._numbers = warn, itertools.count(1)
        self.hidden = 0  # warnings that were not passed on

    def __call__(self, message: str) -> None:
        number = next(self._numbers)
        if number <= WARNINGS:
            self._warn(message)
        else:
            self.hidden = max(self.hidden, number - WARNINGS)  # other threads warn, too

    def end(self) -> None:
        """Say how many were not passed on."""
        if self.hidden:
            self._warn(
                f"and {self.hidden} more like these; `fastglow doctor` looks at single files"
            )
