"""What ``fastglow vocode`` does with its files: read, synthesise, write, count, report."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from fastglow.atomic import make_folder
from fastglow.audio import (
    WriteReport,
    convert_mel,
    diagnose,
    mel_spectrogram,
    read_audio,
    read_mel,
    write_audio,
)
from fastglow.cli.inputs import Task
from fastglow.cli.progress import Progress
from fastglow.corpus import Corpus, Outcome
from fastglow.errors import InputError, OutputError
from fastglow.vocoder import Float32, Vocoder

TOGETHER = {"cpu": 2000, "cuda": 16_000}  # frames: 23 s, and a whole pass of the CUDA engine

WARNINGS = 10  # that are shown

Tell = Callable[[Outcome[Task, WriteReport]], None]


@dataclass(frozen=True, slots=True)
class Job:
    """How each file is treated: as the options of the command.

    Attributes:
        together: Frames computed at once; 0: what suits the device.
    """

    vocoder: Vocoder
    sigma: float
    seed: int
    denoise: float
    mel_scale: str
    subtype: str
    together: int

    def synthesize(self, mels: Sequence[Float32]) -> list[Float32]:
        """The audio [samples] of each mel [n_mel, frames]."""
        lengths = [mel.shape[1] for mel in mels]
        batch = np.zeros((len(mels), mels[0].shape[0], max(lengths)), dtype=np.float32)
        for row, mel in zip(batch, mels, strict=True):
            row[:, : mel.shape[1]] = mel
        audio, samples = self.vocoder.synthesize(
            batch, sigma=self.sigma, seed=self.seed, denoise=self.denoise, lengths=lengths
        )
        return [row[:count].copy() for row, count in zip(audio, samples, strict=True)]

    def write(self, task: Task, audio: Float32) -> WriteReport:
        """Write a task's audio."""
        make_folder(task.target.parent)
        return write_audio(task.target, audio, self.vocoder.sampling_rate, subtype=self.subtype)


@dataclass(slots=True)
class Totals:
    """What a run did."""

    done: int = 0
    skipped: int = 0
    clipped: int = 0
    seconds: float = 0.0
    computing: float = 0.0
    failed: list[str] = field(default_factory=list)

    @property
    def rtf(self) -> float:
        """Compute seconds a second of audio."""
        return self.computing / self.seconds if self.seconds else 0.0


def vocode_files(
    tasks: Sequence[Task], job: Job, *, skip_existing: bool, report: Path | None, quiet: bool
) -> Totals:
    """Vocode every task; what fails is told and counted.

    Raises:
        OutputError: The outputs' place takes no more; what was written before is whole.
    """
    totals = Totals()
    todo = [task for task in tasks if not (skip_existing and task.target.exists())]
    totals.skipped = len(tasks) - len(todo)
    device = "cpu" if job.vocoder.engine.device == "cpu" else "cuda"
    with Progress(len(todo), hidden=quiet) as progress, _opened(report) as tell:
        warn = _Few(progress.warn)
        read = partial(_read, job=job, warn=warn)
        corpus = Corpus(read, job.synthesize, job.write, job.together or TOGETHER[device])
        try:
            for outcome in corpus.run(todo):
                tell(outcome)
                _count(outcome, totals, job.vocoder.sampling_rate, progress.error, warn)
                progress.advance(f"RTF {totals.rtf:.3f}")
        except OutputError as error:
            raise OutputError(f"{error}; {totals.done} files written before are whole") from None
        except KeyboardInterrupt:
            progress.error(f"interrupted; {totals.done} files written so far are whole")
            raise
    return totals


def _count(
    outcome: Outcome[Task, WriteReport],
    totals: Totals,
    rate: int,
    fail: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    task, written = outcome.task, outcome.written
    if written is None:
        totals.failed.append(str(task.source))
        if isinstance(outcome.error, OutputError):
            return  # which ends the run and is told once
        message = str(outcome.error)
        known = str(task.source) in message or str(task.target) in message
        fail(message if known else f"{task.source}: {message}")
        return
    if written.clipped:
        warn(f"{task.target}: {written.clipped} samples over full scale were clipped")
    totals.clipped += written.clipped
    totals.computing += outcome.seconds
    totals.seconds += written.samples / rate
    totals.done += 1


class _Few:
    """Passes the first warnings on: a corpus made in one wrong way would give one a file."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn, self._numbers = warn, itertools.count(1)

    def __call__(self, message: str) -> None:
        number = next(self._numbers)
        if number <= WARNINGS:
            self._warn(message)
        elif number == WARNINGS + 1:
            self._warn("and more; --report names every file that is clipped or failed")


@contextmanager
def _opened(report: Path | None) -> Iterator[Tell]:
    """What appends an outcome to the report; nothing where none is wanted.

    Raises:
        InputError: The report cannot be written.
    """
    if report is None:
        yield lambda outcome: None
        return
    try:
        file = report.open("a", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{report}: the report cannot be written ({error.strerror})") from None
    with file:

        def tell(outcome: Outcome[Task, WriteReport]) -> None:
            entry: dict[str, object] = {"source": str(outcome.task.source)}
            if outcome.written:
                entry |= {
                    "target": str(outcome.written.path),
                    "samples": outcome.written.samples,
                    "peak": round(outcome.written.peak, 4),
                    "clipped": outcome.written.clipped,
                    "seconds": round(outcome.seconds, 6),
                }
            else:
                entry["error"] = str(outcome.error)
            try:
                file.write(json.dumps(entry) + "\n")
                file.flush()
            except OSError as error:
                raise OutputError(f"{report}: cannot be written ({error.strerror})") from None

        yield tell


def _read(task: Task, job: Job, warn: Callable[[str], None]) -> Float32:
    """The task's mel, converted to natural log; warns if it does not look like one."""
    vocoder, mel_scale = job.vocoder, job.mel_scale
    if task.is_audio:
        wave, rate = read_audio(task.source, vocoder.sampling_rate)
        return mel_spectrogram(wave, rate, config=vocoder.config)
    mel = convert_mel(read_mel(task.source, vocoder.config), mel_scale, vocoder.config)
    diagnosis = diagnose(mel, vocoder.config)
    if diagnosis.verdict == "constant":
        raise InputError(f"{task.source}: {diagnosis.summary}; nothing to say")
    if not diagnosis.ok:
        mend = f" (mend: {diagnosis.mend})" if diagnosis.mend else ""
        warn(f"{task.source}: {diagnosis.summary}{mend}")
    return mel


def summary(totals: Totals, out: Path) -> str:
    """What was done, in a line."""
    parts = [f"{totals.done} file{'s' if totals.done != 1 else ''}"]
    if totals.seconds:
        parts.append(
            f"{totals.seconds:.1f} s of audio in {totals.computing:.2f} s "
            f"(RTF {totals.rtf:.3f}, {1 / max(totals.rtf, 1e-9):.1f} x real time)"
        )
    if totals.skipped:
        parts.append(f"{totals.skipped} skipped")
    if totals.clipped:
        parts.append(f"{totals.clipped} samples clipped")
    if totals.failed:
        parts.append(f"{len(totals.failed)} failed")
    return f"{', '.join(parts)} -> {out}"
