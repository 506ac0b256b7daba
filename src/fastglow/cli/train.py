"""``fastglow train``: recordings in, a voice out."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastglow.cli import options

if TYPE_CHECKING:
    from fastglow.cli.progress import Progress
    from fastglow.training.check import Recording, Report
    from fastglow.training.settings import Settings
    from fastglow.training.team import Team

EPILOG = """
examples:

  fastglow train --example > train.toml       a settings file, every key explained

  fastglow train train.toml --check           read the recordings, report, stop there

  fastglow train train.toml                   train; after Ctrl-C the same goes on from there

  fastglow train train.toml --init glow-64 --steps 3000       tune the shipped voice

  torchrun --nproc-per-node 4 -m fastglow train train.toml    four GPUs

  fastglow vocode a.wav -m runs/my-voice/voice --match-mel 0  hear the network alone

the folder that is written:

  voice/         the averaged weights: a model for every other command

  checkpoints/   the last few of them

  state.pt       what the same command goes on from, as if it had never stopped

  log.jsonl      losses and validation, a line each; tensorboard/ if that is installed

Recordings of other rates are resampled; what cannot be read or is not finite is refused, silence
and what is shorter than a segment left out, and all of it reported before the first step.
"""


def command(
    config: Annotated[
        Path | None,
        typer.Argument(help="A settings file; --example shows one.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The folder to write, in place of the file's `out`."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the whole run, in place of the file's.", min=1)
    ] = None,
    device: options.Device = "auto",
    init: Annotated[
        str | None,
        typer.Option(help="A checkpoint or voice to start from, in place of the file's `init`."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Read settings and recordings, report, stop there.")
    ] = False,
    example: Annotated[
        bool, typer.Option("--example", help="Print a settings file with every key explained.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Refuse to go on with an earlier run.")
    ] = False,
    export_nvidia: Annotated[
        Path | None,
        typer.Option(help="At the end also write the voice as a .pt that NVIDIA's programs load."),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Train a voice on recordings, or tune one; run the same command again to go on."""
    from fastglow.errors import InputError

    if importlib.util.find_spec("torch") is None and not example:
        raise InputError("train needs PyTorch: pip install 'fastglow[train]'")
    if example:
        from fastglow.training.example import example as text

        typer.echo(text(), nl=False)
        return
    if config is None:
        raise InputError("name a settings file; `fastglow train --example > train.toml` makes one")
    from fastglow.training.settings import read_settings
    from fastglow.training.team import joined

    settings = read_settings(config, out=out, steps=steps, init=init)
    with joined(device) as team:
        _train(settings, config.parent, team, check, fresh, export_nvidia, quiet)


def _train(
    settings: Settings, base: Path, team: Team, check: bool, fresh: bool, nvidia: Path | None,
    quiet: bool,
) -> None:  # fmt: skip
    from fastglow.training.nvidia import check_nvidia, save_nvidia
    from fastglow.training.run import VOICE, Run, check_folder
    from fastglow.training.start import start_network

    out = base / Path(settings.out).expanduser()
    network = start_network(settings, base)
    if nvidia:
        check_nvidia(network.config, nvidia)
    if not check:
        check_folder(out, fresh)
    hidden = quiet or not team.leads
    recordings, held_out, reports = _read(settings, base, network.config.sampling_rate, hidden)
    if check:
        return
    with Display(settings.train.steps, hidden) as display:
        run = Run(settings, network, out, recordings, held_out, team, display)
        if run.journal:
            run.journal.write("data", run.trainer.done, reports)
        outcome = run.run()
    if not team.leads:
        return
    if not quiet:
        typer.echo(f"{_summary(*outcome)} -> {out / VOICE}")
    if outcome.stopped:
        raise typer.Exit(130)
    if nvidia:
        save_nvidia(run.voice(), nvidia)
        if not quiet:
            typer.echo(f"wrote {nvidia}")


def _summary(done: int, skipped: int, stopped: bool) -> str:
    what = f"stopped after {done} steps; the same command goes on" if stopped else f"{done} steps"
    return f"{what}, {skipped} skipped (not finite)" if skipped else what


def _read(
    settings: Settings, base: Path, rate: int, hidden: bool
) -> tuple[list[Recording], list[Recording], dict[str, object]]:
    """The recordings to train and to validate on, with what was found.

    Raises:
        InputError: None to train on is usable, or none of those to validate on.
    """
    from fastglow.cli.progress import Progress
    from fastglow.errors import InputError
    from fastglow.training.check import read_recordings
    from fastglow.training.sources import find_sources

    held = find_sources(settings.data.validation, base)
    out = {source.path.resolve() for source in held}
    named = find_sources(settings.data.train, base)
    used = [source for source in named if source.path.resolve() not in out]
    found: list[list[Recording]] = []
    reports: dict[str, Report] = {}
    with Progress(len(used) + len(held), hidden=hidden) as progress:
        for name, sources in (("training", used), ("held out", held)):
            recordings, reports[name] = read_recordings(
                sources, rate, settings.train.segment, lambda: progress.advance("reading")
            )
            found.append(recordings)
    for name, report in reports.items():
        if not hidden and (report.files or name == "training"):
            typer.echo("\n".join(report.lines(name)), err=True)
    for name, report in reports.items():
        if not report.used and (report.files or name == "training"):
            reasons = "; ".join(report.problems) or "all of them are held out"
            raise InputError(f"{name}: none of {report.files} recordings is usable ({reasons})")
    return found[0], found[1], {name: report.to_dict() for name, report in reports.items()}


class Display:
    """How training goes: a bar on terminals, a line now and then elsewhere; on stderr."""

    def __init__(self, steps: int, hidden: bool) -> None:
        self._steps, self._hidden, self._note = steps, hidden, ""
        self._terminal = sys.stderr.isatty()
        self._bar: Progress | None = None
        self._shown = ExitStack()
        self._began = (0, 0.0)

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *error: object) -> None:
        self._shown.close()

    def step(self, done: int, losses: Mapping[str, float] | None) -> None:
        """A step is done; losses come now and then."""
        from fastglow.cli.progress import Progress

        if self._bar is None:
            left = self._steps - done + 1
            self._bar = self._shown.enter_context(Progress(left, hidden=self._hidden))
            self._began = (done - 1, time.monotonic())
        if losses is not None:
            terms = " ".join(f"{name} {value:.4g}" for name, value in losses.items())
            self._note = f"step {done}: {terms}"
            if not self._terminal:
                self.say(f"{self._note}, {self._left(done)} left")
        self._bar.advance(self._note)

    def say(self, message: str) -> None:
        """A line of its own, above the bar."""
        if not self._hidden:
            typer.echo(message, err=True)

    def _left(self, done: int) -> str:
        first, began = self._began
        seconds = (time.monotonic() - began) / max(1, done - first) * (self._steps - done)
        return str(timedelta(seconds=round(seconds)))
