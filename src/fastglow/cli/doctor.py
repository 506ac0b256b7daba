"""``fastglow doctor``: does this mel fit the model, and if not, what is it?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastglow.cli import options


def command(
    inputs: Annotated[
        list[Path], typer.Argument(help="Mels (.npy .npz .pt .safetensors) or folders of them.")
    ],
    seconds: Annotated[
        float | None,
        typer.Option(help="Length of the recording, if known: tells the hop.", min=0.01),
    ] = None,
    model: options.Model = None,
    hop: options.Hop = None,
    rate: options.Rate = None,
) -> None:
    """Say which convention a mel follows and how to convert it.

    Exit status 0: every mel can be vocoded as it is; 1: some need a conversion; 2: some cannot
    be read.
    """
    from fastglow.audio import diagnose, read_raw_mel
    from fastglow.audio.mels import SUFFIXES
    from fastglow.checkpoint import load_weights
    from fastglow.cli.inputs import find_sources
    from fastglow.errors import FastglowError
    from fastglow.voices import find_voice

    sources = find_sources(inputs, SUFFIXES)
    config = load_weights(find_voice(model), hop=hop, rate=rate).config
    status = 0
    for source, _ in sources:
        try:
            diagnosis = diagnose(read_raw_mel(source), config, seconds=seconds)
        except FastglowError as error:
            status = 2
            typer.echo(f"error: {error}", err=True)
            continue
        status = max(status, 0 if diagnosis.ok else 1)
        typer.echo(f"{source}: {diagnosis.summary}")
        for line in diagnosis.evidence:
            typer.echo(f"  {line}")
        if diagnosis.mend:
            typer.echo(f"  mend: {diagnosis.mend}")
    if status:
        raise typer.Exit(status)
