"""Reads the recordings before the first step and tells what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.audio import read_audio
from fastglow.audio.mel import resample
from fastglow.errors import InputError
from fastglow.training.sources import Source

CLIPPED = 1e-4  # share of samples at full scale from which a recording is named
SILENT = 0.5  # share of samples that are zero, likewise
SHOWN = 3  # files named a problem
THREADS = 8


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording fit to train on: [samples] at the model's rate."""

    path: Path
    wave: NDArray[np.int16]
    weight: float


@dataclass(slots=True)
class Report:
    """What the check found.

    Attributes:
        rate: Of the model, in Hz.
        files: Recordings that were read.
        used: Those fit to train on.
        seconds: Of those.
        problems: Files by what is the matter with them.
    """

    rate: int
    files: int = 0
    used: int = 0
    seconds: float = 0.0
    problems: dict[str, list[str]] = field(default_factory=dict)

    def note(self, problem: str, path: Path) -> None:
        """One more file has this problem."""
        self.problems.setdefault(problem, []).append(str(path))

    def lines(self, name: str) -> list[str]:
        """The report as text, the sum first.

        Args:
            name: Of these recordings, for example "training".
        """
        hours, rest = divmod(round(self.seconds), 3600)
        total = f"{hours} h {rest // 60:02d} min {rest % 60:02d} s at {self.rate} Hz"
        out = [f"{name}: {self.used} of {self.files} recordings, {total}"]
        for problem, names in sorted(self.problems.items()):
            more = ", …" if len(names) > SHOWN else ""
            out.append(f"  {len(names)} {problem}: {', '.join(names[:SHOWN])}{more}")
        return out

    def to_dict(self) -> dict[str, Any]:
        """For the log: counts without the names."""
        problems = {problem: len(names) for problem, names in self.problems.items()}
        return {
            "files": self.files,
            "used": self.used,
            "seconds": round(self.seconds, 3),
            "problems": problems,
        }


def read_recordings(
    sources: Sequence[Source], rate: int, segment: int, tick: Callable[[], None] = lambda: None
) -> tuple[list[Recording], Report]:
    """Every recording that is fit to train on, and what was found.

    Refused: what cannot be read, or is not finite. Left out: digital silence, and what is shorter
    than a segment. Resampled: other rates. Named but used: clipped or mostly silent ones.

    Args:
        sources: What to read.
        rate: Of the model, in Hz.
        segment: Samples of a training segment.
        tick: Called after each file.
    """
    report, kept = Report(rate), []
    with ThreadPoolExecutor(THREADS) as pool:
        for source, (wave, problems) in zip(
            sources, pool.map(lambda s: _read(s.path, rate, segment), sources), strict=True
        ):
            report.files += 1
            for problem in problems:
                report.note(problem, source.path)
            if wave is not None:
                report.used += 1
                report.seconds += wave.size / rate
                kept.append(Recording(source.path, wave, source.weight))
            tick()
    return kept, report


def _read(path: Path, rate: int, segment: int) -> tuple[NDArray[np.int16] | None, list[str]]:
    """The samples unless the recording is unfit, and what is the matter with it."""
    try:
        audio, found = read_audio(path)
        problems = [f"resampled from {found} Hz"] if found != rate else []
        clipped = float(np.mean(np.abs(audio) >= 1 - 2**-15))
        silent = float(np.mean(audio == 0))
        wave = np.rint(resample(audio, found, rate) * 32768).clip(-32768, 32767).astype(np.int16)
    except InputError as error:
        return None, ["refused, " + str(error).removeprefix(f"{path}: ")]
    if silent == 1 or not wave.any():
        return None, ["left out, nothing but digital silence"]
    if wave.size < segment:
        return None, [f"left out, shorter than a segment ({segment / rate:.2f} s)"]
    if clipped >= CLIPPED:
        problems.append(f"used, but clipped (from {CLIPPED:.2%} of the samples at full scale)")
    if silent >= SILENT:
        problems.append(f"used, but mostly digital silence (from {SILENT:.0%} of the samples)")
    return wave, problems
