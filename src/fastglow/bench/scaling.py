"""How the speed of a corpus grows with its workers, from the journals of ``vocode``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastglow.errors import InputError


@dataclass(frozen=True, slots=True)
class CorpusRun:
    """What one run over a corpus did.

    Attributes:
        journal: The file's name.
        what: Voice, device and precision.
        workers: How many computed.
        hours: Of audio.
        wall: Seconds from when the workers had loaded.
        speed: Seconds of audio a second.
        busy: Mean share of the time that a worker computed.
    """

    journal: str
    what: str
    workers: int
    hours: float
    wall: float
    speed: float
    busy: float


def read_runs(path: Path) -> list[CorpusRun]:
    """The runs of a journal that came to their end.

    Args:
        path: A journal of ``vocode --journal``.

    Raises:
        InputError: It cannot be read, is no journal, or holds no such run.
    """
    try:
        with path.open("rb") as file:
            settings = json.loads(file.readline())
            entries = [json.loads(line) for line in file if line.startswith(b'{"run": ')]
        what = f"{Path(settings['voice']).name}, {settings['device']} {settings['precision']}"
        found = [_run(path.name, what, entry["run"]) for entry in entries]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f"{path}: is no journal of vocode, or damaged") from None
    found = [run for run in found if run.workers and run.wall > 0]
    if not found:
        raise InputError(f"{path}: no run in it vocoded a file and came to its end")
    return found


def _run(journal: str, what: str, totals: dict[str, Any]) -> CorpusRun:
    audio, wall = float(totals["audio_seconds"]), float(totals["wall_seconds"])
    busy = dict(totals["busy"])
    share = sum(busy.values()) / max(1, len(busy))
    return CorpusRun(journal, what, len(busy), audio / 3600, wall, audio / max(wall, 1e-9), share)


def efficiency(run: CorpusRun, runs: Sequence[CorpusRun]) -> float:
    """A run's speed a worker over that of the runs with the fewest workers, on average."""
    alike = [other for other in runs if other.what == run.what]
    fewest = min(other.workers for other in alike)
    speeds = [other.speed for other in alike if other.workers == fewest]
    return run.speed / run.workers / (sum(speeds) / len(speeds) / fewest)


def plot_runs(runs: Sequence[CorpusRun], path: Path) -> None:
    """Draw speed against workers, every run a point, beside lines of perfect scaling.

    Args:
        runs: At least one.
        path: A .png file.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    from fastglow.atomic import replacing

    figure, axis = plt.subplots(figsize=(5.5, 4), layout="constrained")
    most = max(run.workers for run in runs)
    for what in dict.fromkeys(run.what for run in runs):
        alike = [run for run in runs if run.what == what]
        (points,) = axis.plot(
            [run.workers for run in alike], [run.speed for run in alike], "o", label=what
        )
        one = alike[0].speed / alike[0].workers / efficiency(alike[0], alike)
        axis.plot([0, most], [0, most * one], "--", color=points.get_color(), linewidth=0.8)
    axis.set(xlabel="workers", ylabel="seconds of audio a second", xlim=(0, most + 0.5))
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(title="dashed: perfect scaling", fontsize="small")
    axis.grid(alpha=0.3)
    with replacing(path) as (part,):
        figure.savefig(part, dpi=110, format="png")
    plt.close(figure)
