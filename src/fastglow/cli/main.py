"""The ``fastglow`` command."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from fastglow import __version__
from fastglow.cli import (
    bench,
    convert,
    demo,
    doctor,
    evaluate,
    export,
    info,
    mel,
    scaling,
    train,
    vocode,
)
from fastglow.cli.options import flowing
from fastglow.errors import EngineError, FastglowError

app = typer.Typer(
    name="fastglow",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""WaveGlow, fast: mel spectrograms in, speech out.

    Start with `fastglow demo`, then `fastglow vocode my_mel.npy -o out/`.
    If it sounds like noise, `fastglow doctor my_mel.npy` says why.""",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fastglow {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


for name, module in {
    "vocode": vocode,
    "mel": mel,
    "doctor": doctor,
    "info": info,
    "convert": convert,
    "demo": demo,
    "bench": bench,
    "scaling": scaling,
    "evaluate": evaluate,
    "train": train,
}.items():
    epilog = flowing(getattr(module, "EPILOG", None))
    app.command(name, help=flowing(module.command.__doc__), epilog=epilog)(module.command)
app.add_typer(export.app, name="export")


def run() -> None:
    """Run the command; what the user can mend is one line and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may be no text
    try:
        app()
    except EngineError as error:
        _fail(error, 1)
    except FastglowError as error:
        _fail(error, 2)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}", 2)


def _fail(message: object, status: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
