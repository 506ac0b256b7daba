"""``fastglow convert``: any checkpoint to safetensors + config.json, or to .npy files."""

from __future__ import annotations

from typing import Annotated

import typer

from fastglow.cli import options


def command(
    model: Annotated[
        str, typer.Argument(help="A .pt, .pth or .safetensors file, a folder, or a voice's name.")
    ],
    out: options.Out,
    to: Annotated[
        str, typer.Option(help="safetensors, or npy (the 2019 C++ program's folder).")
    ] = "safetensors",
    dtype: Annotated[
        str, typer.Option(help="Of the safetensors: float16, float32 or float64.")
    ] = "float32",
    hop: options.Hop = None,
    rate: options.Rate = None,
    dialect: options.Dialect = None,
) -> None:
    """Convert a checkpoint; nothing in it is executed."""
    from fastglow.checkpoint import load_weights, save_npy_folder, save_safetensors
    from fastglow.errors import InputError
    from fastglow.voices import find_voice

    if to not in ("safetensors", "npy"):
        raise InputError(f"--to {to}: expected safetensors or npy")
    if dtype not in ("float16", "float32", "float64"):
        raise InputError(f"--dtype {dtype}: expected float16, float32 or float64")
    if out.suffix in (".safetensors", ".npy", ".pt", ".pth"):
        raise InputError(f"{out}: the output is a folder; leave out {out.suffix}")
    weights = load_weights(find_voice(model), hop=hop, rate=rate, dialect=dialect)
    if to == "npy":
        save_npy_folder(weights, out)
    else:
        save_safetensors(weights, out, dtype=dtype)
    typer.echo(f"{weights.provenance.dialect} -> {out} ({weights.parameters:,} parameters)")
