"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from fastglow.atomic import write_whole
from fastglow.evaluate.pictures import strips
from fastglow.evaluate.record import Result
from fastglow.evaluate.scores import Metric
from fastglow.evaluate.table import figure, interval, label

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 80em; padding: 0 1em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1em 0 }
th, td { padding: .2em .7em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% }
.wide { overflow-x: auto }
.quiet { color: #666 }
"""


def write_report(path: Path, result: Result, pictures: Sequence[tuple[str, bytes]]) -> None:
    """Write summary, settings, spectrograms and figures as one file without external parts.

    Args:
        path: An .html file.
        result: A run with at least one file.
        pictures: File names, each with its spectrograms as PNG.

    Raises:
        InputError: It cannot be written; nothing was changed.
    """
    title = f"fastglow evaluate: {escape(result.voice)}"
    count = len(result.files)
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>",
        f"<p>Copy-synthesis of {count} recording{'s' * (count != 1)}: mean over the files, "
        "with its 95 % bootstrap interval in brackets.</p>",
        _table(["metric", "better", *_systems(result)], _summary(result)),
        _image(strips(result), "every file's figures"),
        "<p class=quiet>A point is a file; the diamond is the mean, the bar its interval.</p>",
        "<h2>Spectrograms</h2>" if pictures else "",
        *(f"<h3>{escape(name)}</h3>{_image(png, name)}" for name, png in pictures),
        "<h2>Every file</h2>",
        _table(["file", "s", "system", *(_heading(m) for m in result.metrics)], _files(result)),
        _failures(result),
        "<h2>Settings</h2>",
        _table(["setting", "value"], _settings(result)),
        "</body></html>\n",
    ]
    write_whole(path, ["\n".join(parts).encode("utf-8", "xmlcharrefreplace")])


def _systems(result: Result) -> list[str]:
    return [label(result, system) for system in result.systems]


def _heading(metric: Metric) -> str:
    return f"{metric.heading}, {metric.unit}" if metric.unit else metric.heading


def _summary(result: Result) -> Iterable[list[str]]:
    for metric in result.metrics:
        means = [result.summary[system].get(metric.key) for system in result.systems]
        name = f"{metric.name}, {metric.unit}" if metric.unit else metric.name
        yield [name, metric.better, *(interval(mean, metric) for mean in means)]


def _files(result: Result) -> Iterable[list[str]]:
    for file in result.files:
        for system, scores in file.scores.items():
            figures = [figure(scores[m.key], m) if m.key in scores else "" for m in result.metrics]
            yield [file.file, f"{file.seconds:.1f}", label(result, system), *figures]


def _settings(result: Result) -> Iterable[list[str]]:
    for name, value in result.settings.items():
        yield [name, "–" if value is None else str(value)]
    yield ["versions", ", ".join(f"{name} {version}" for name, version in result.versions.items())]


def _failures(result: Result) -> str:
    if not result.failed:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in result.failed)
    return f"<h2>Not judged</h2><ul>{lines}</ul>"


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows
    )
    inner = f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>"
    return f"<div class=wide><table>{inner}</table></div>"


def _image(png: bytes, what: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(what)}" src="data:image/png;base64,{data}">'
