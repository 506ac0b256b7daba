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
        float | None, typer.Option(help="Length of the recording, if known: tells the hop.")
    ] = None,
    model: options.Model = None,
    hop: options.Hop = None,
    rate: options.Rate = None,
) -> None:
    """Say which convention a mel follows and how to convert it.

    Exit status 0: every mel can be vocoded as it is; 1: some need a conversion or are broken.
    """
    from fastglow.audio import diagnose, read_raw_mel
    from fastglow.checkpoint import load_weights
    from fastglow.cli.inputs import MEL_SUFFIXES, plan_tasks
    from fastglow.errors import FastglowError
    from fastglow.voices import find_voice

    tasks = plan_tasks(inputs, Path(), ".wav", MEL_SUFFIXES)
    config = load_weights(find_voice(model), hop=hop, rate=rate).config
    healthy = True
    for task in tasks:
        try:
            diagnosis = diagnose(read_raw_mel(task.source), config, seconds=seconds)
        except FastglowError as error:
            healthy = False
            typer.echo(f"error: {error}")
            continue
        healthy &= diagnosis.ok
        typer.echo(f"{task.source}: {diagnosis.summary}")
        for line in diagnosis.evidence:
            typer.echo(f"  {line}")
        if diagnosis.mend:
            typer.echo(f"  mend: {diagnosis.mend}")
    if not healthy:
        raise typer.Exit(1)
