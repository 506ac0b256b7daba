"""Results as tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastglow.evaluate.record import Mean, Result
from fastglow.evaluate.scores import BASELINE, ORIGINAL, VOICE, Metric

NONE = "n/a"
WIDE = 140  # columns of a terminal that hold every figure of a file


def named(system: str, voice: str) -> str:
    """A system's name as it is shown, where the voice has this one."""
    return {VOICE: voice, BASELINE: "Griffin-Lim", ORIGINAL: "original"}[system]


def label(result: Result, system: str) -> str:
    """A system's name as it is shown."""
    return named(system, result.voice)


def figure(value: float | None, metric: Metric) -> str:
    """One figure with the metric's digits; "n/a" without a value."""
    return NONE if value is None else f"{value:.{metric.digits}f}"


def interval(mean: Mean | None, metric: Metric) -> str:
    """A mean with its 95 % interval, and how many files had no value; empty for no mean."""
    if mean is None:
        return ""
    text = figure(mean.mean, metric)
    if mean.low is not None:
        text += f" [{figure(mean.low, metric)}, {figure(mean.high, metric)}]"
    return text + (f" ({mean.missing} {NONE})" if mean.missing else "")


def print_result(console: Console, result: Result) -> None:
    """Every file, then the means, and how the voice spoke."""
    wide = console.width >= WIDE
    console.print(_files(result, [m for m in result.metrics if m.brief or wide]))
    console.print(_summary(result))
    if "match_mel" in result.settings:  # else the files were there
        told = {name: f"{result.settings[name]:g}" for name in ("sigma", "denoise", "match_mel")}
        console.print(
            f"{result.voice}: sigma {told['sigma']}, denoise {told['denoise']}, mel matching "
            f"{told['match_mel']} (--match-mel 0 judges the network alone)",
            markup=False,
            highlight=False,
        )


def _files(result: Result, metrics: Sequence[Metric]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title="every file", title_justify="left")
    table.add_column("file", no_wrap=True, overflow="ellipsis", min_width=10, max_width=28)
    table.add_column("s", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis", max_width=14)
    for metric in metrics:
        table.add_column(metric.heading, justify="right", no_wrap=True)
    for file in result.files:
        start = [Text(PurePosixPath(file.file).name), Text(f"{file.seconds:.1f}")]
        for system in result.systems:
            scores = file.scores.get(system, {})
            figures = [
                Text(figure(scores[metric.key], metric) if metric.key in scores else "")
                for metric in metrics
            ]
            table.add_row(*start, Text(label(result, system)), *figures)
            start = [Text(""), Text("")]
    return table


def _summary(result: Result) -> Table:
    count = len(result.files)
    title = f"mean over {count} file{'s' * (count != 1)} [95 % bootstrap interval]"
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left")
    table.add_column("metric", no_wrap=True)
    table.add_column("better", no_wrap=True)
    for system in result.systems:
        table.add_column(Text(label(result, system)), justify="right")
    for metric in result.metrics:
        name = f"{metric.name}, {metric.unit}" if metric.unit else metric.name
        means = [result.summary[system].get(metric.key) for system in result.systems]
        table.add_row(name, metric.better, *(Text(interval(mean, metric)) for mean in means))
    return table
