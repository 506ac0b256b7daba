"""The figures of a run as data: what tables, reports and JSON files are made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastglow.atomic import write_whole
from fastglow.evaluate.scores import METRICS, ORIGINAL, Metric, Scores

FORMAT = "fastglow evaluate 1"
RESAMPLES, BLOCK = 10_000, 1_000_000  # of the files; figures drawn at a time
CONFIDENCE = 95  # per cent
DECIMALS = 6  # of the figures in JSON


@dataclass(frozen=True, slots=True)
class FileScores:
    """One file.

    Attributes:
        file: Its name under the folder that the user named.
        seconds: Of audio.
        scores: By system: the original, the voice, the baseline if there is one.
    """

    file: str
    seconds: float
    scores: Mapping[str, Scores]


@dataclass(frozen=True, slots=True)
class Mean:
    """One metric of one system over all files.

    Attributes:
        mean: None if no file has a value.
        low: The lower end of the 95 % interval; None with fewer than two values.
        high: The upper end.
        files: With a value.
        missing: Without.
    """

    mean: float | None
    low: float | None
    high: float | None
    files: int
    missing: int


@dataclass(frozen=True, slots=True)
class Result:
    """A whole run.

    Attributes:
        voice: What was judged, in words.
        settings: What was asked for.
        versions: Of the packages that the figures come from.
        files: In the order of the inputs.
        failed: A line for each file that has no scores.
    """

    voice: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    files: Sequence[FileScores] = ()
    failed: Sequence[str] = ()
    summary: Mapping[str, Mapping[str, Mean]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "summary", summarize(self.files))

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Those that the run has, in their order."""
        found = {key for file in self.files for scores in file.scores.values() for key in scores}
        return tuple(metric for metric in METRICS if metric.key in found)

    @property
    def systems(self) -> tuple[str, ...]:
        """Those that were scored, the original last."""
        found = dict.fromkeys(system for file in self.files for system in file.scores)
        return tuple(sorted(found, key=lambda system: system == ORIGINAL))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; metrics are explained, figures have six decimals."""
        metrics = {metric.key: asdict(metric) for metric in self.metrics}
        data = {"format": FORMAT, **asdict(self), "metrics": metrics}
        rounded: dict[str, Any] = _rounded(data)
        return rounded

    def write(self, path: Path) -> None:
        """Write JSON; the same run gives the same bytes.

        Raises:
            InputError: It cannot be written; nothing was changed.
        """
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        write_whole(path, [text.encode("utf-8", "backslashreplace"), b"\n"])


def summarize(files: Sequence[FileScores]) -> dict[str, dict[str, Mean]]:
    """The mean of every metric by system and key."""
    columns: dict[str, dict[str, list[float | None]]] = {}
    for file in files:
        for system, scores in file.scores.items():
            for key, value in scores.items():
                columns.setdefault(system, {}).setdefault(key, []).append(value)
    return {
        system: {key: mean_of(values) for key, values in by_key.items()}
        for system, by_key in columns.items()
    }


def mean_of(values: Sequence[float | None]) -> Mean:
    """The mean and its 95 % interval by the percentile bootstrap over files.

    Args:
        values: One a file, None where the metric has none.
    """
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    missing = len(values) - known.size
    if known.size < 2:
        return Mean(float(known[0]) if known.size else None, None, None, known.size, missing)
    draws, block = np.random.default_rng(0), max(1, BLOCK // known.size)
    means = np.empty(RESAMPLES)
    for first in range(0, RESAMPLES, block):
        shape = (min(block, RESAMPLES - first), known.size)
        means[first : first + block] = known[draws.integers(0, known.size, shape)].mean(axis=1)
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Mean(float(known.mean()), float(low), float(high), known.size, missing)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DECIMALS)
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value
