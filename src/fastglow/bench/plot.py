"""Speed as a picture; needs matplotlib (the extra ``plot``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from fastglow.atomic import replacing
from fastglow.bench.record import OURS, Case, Result
from fastglow.errors import InputError

LENGTH, BATCH = "seconds of audio a row", "rows of the batch"
# Okabe and Ito's colours, told apart by everybody; fastglow is black.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#999933")


def plot(result: Result, path: Path) -> None:
    """Draw kHz against length and against batch, a line for each candidate.

    Each row of panels is one model. A panel against the length holds one batch, a panel against
    the batch one length; whichever has a single value is left out if the other has several.

    Args:
        result: A run.
        path: A .png file.

    Raises:
        InputError: Nothing in it has a speed.
    """
    models = list(dict.fromkeys((case.model, case.channels) for case in result.cases))
    groups = [panels([c for c in result.cases if (c.model, c.channels) == m]) for m in models]
    names = list(dict.fromkeys(name for case in result.cases for name in lines(LENGTH, [case])))
    if not names:
        raise InputError(f"{path}: there is nothing to draw, no candidate has a speed")
    width = max(map(len, groups))
    figure, axes = plt.subplots(
        len(groups),
        width,
        figsize=(4 * width + 2, 3.6 * len(groups)),
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    for group, row in zip(groups, axes, strict=True):
        for axis in row[len(group) :]:
            axis.set_visible(False)
        for (title, label, cases), axis in zip(group, row, strict=False):
            _panel(axis, title, label, cases, names)
        row[0].set_ylabel("kHz")
    handles = [Line2D([], [], label=name, **_style(name, names)) for name in names]
    figure.legend(handles=handles, loc="outside right upper", fontsize="small")
    machine = result.about["machine"]
    figure.suptitle(machine.get("gpu", machine["processor"]), fontsize="medium")
    with replacing(path) as (part,):
        figure.savefig(part, dpi=110, format="png")
    plt.close(figure)


def panels(cases: Sequence[Case]) -> list[tuple[str, str, list[Case]]]:
    """What to draw of one model: title, axis and cases of each panel."""
    channels = cases[0].channels
    lengths = sorted({case.seconds for case in cases})
    batches = sorted({case.batch for case in cases})
    found = []
    if len(lengths) > 1 or len(batches) == 1:
        for batch in batches:
            chosen = [case for case in cases if case.batch == batch]
            found.append((f"{channels} channels, batch {batch}", LENGTH, chosen))
    if len(batches) > 1:
        for seconds in lengths:
            chosen = [case for case in cases if case.seconds == seconds]
            found.append((f"{channels} channels, {round(seconds, 2):g} s", BATCH, chosen))
    return found


def lines(label: str, cases: Sequence[Case]) -> dict[str, tuple[list[float], list[float]]]:
    """A panel's lines, x and kHz, by candidate; those without a speed are left out."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for case in sorted(cases, key=lambda case: (case.batch, case.seconds)):
        for row in case.rows:
            if row.speed:
                xs, ys = found.setdefault(f"{row.name} {row.precision}", ([], []))
                xs.append(case.seconds if label == LENGTH else float(case.batch))
                ys.append(row.speed.khz)
    return found


def _style(name: str, names: Sequence[str]) -> dict[str, Any]:
    if name.startswith(OURS):
        dashes = sum(other.startswith(OURS) for other in names[: names.index(name)])
        style = ("-", "--", "-.", ":")[dashes % 4]
        return {"color": "black", "marker": "o", "linewidth": 2.2, "linestyle": style}
    peers = [other for other in names if not other.startswith(OURS)]
    return {"color": COLOURS[peers.index(name) % len(COLOURS)], "marker": "o", "linewidth": 1.2}


def _panel(axis: Axes, title: str, label: str, cases: Sequence[Case], names: Sequence[str]) -> None:
    for name, (xs, ys) in lines(label, cases).items():
        axis.plot(xs, ys, **_style(name, names))
    axis.set(title=title, xlabel=label, xscale="log", yscale="log")
    ticks = sorted({case.seconds if label == LENGTH else case.batch for case in cases})
    axis.set_xticks(ticks, [f"{round(tick, 2):g}" for tick in ticks])
    axis.xaxis.minorticks_off()
    for which in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        which(FuncFormatter(lambda value, _: f"{value:,.3g}" if value < 1e3 else f"{value:,.0f}"))
    axis.tick_params(axis="y", which="minor", labelsize="x-small")
    axis.grid(alpha=0.3, which="both")
