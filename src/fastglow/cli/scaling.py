"""``fastglow scaling``: how a corpus's speed grew with its workers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """
examples:

  fastglow vocode mels/ -o one/ --journal one.jsonl --device cuda:0

  fastglow vocode mels/ -o two/ --journal two.jsonl --device cuda:0,cuda:1

  fastglow scaling one.jsonl two.jsonl --plot scaling.png
"""


def command(
    journals: Annotated[
        list[Path], typer.Argument(help="Journals of `fastglow vocode --journal`, a line a run.")
    ],
    plot_file: Annotated[
        Path | None, typer.Option("--plot", help="Draw speed against workers (.png).")
    ] = None,
) -> None:
    """Show how fast runs over a corpus were, by the number of their workers.

    Times count from when the workers have loaded. Scaling is the speed a worker over that of
    the runs of the same voice, device and precision with the fewest workers.
    """
    from rich.table import Table

    from fastglow.bench.scaling import efficiency, plot_runs, read_runs
    from fastglow.cli.bench import check_plot, open_console

    if plot_file:
        check_plot(plot_file)
    runs = [run for path in journals for run in read_runs(path)]
    names = ("journal", "voice and device", "workers", "hours", "seconds", "× real time", "busy")
    table = Table(*names, "scaling")
    for run in runs:
        table.add_row(
            run.journal,
            run.what,
            str(run.workers),
            f"{run.hours:.4g}",
            f"{run.wall:.1f}",
            f"{run.speed:.1f}",
            f"{100 * run.busy:.0f} %",
            f"{efficiency(run, runs):.2f}",
        )
    open_console().print(table)
    if plot_file:
        plot_runs(runs, plot_file)
        typer.echo(f"wrote {plot_file}")
