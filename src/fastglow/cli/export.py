"""``fastglow export``: the rewritten network for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastglow.cli import options

app = typer.Typer(no_args_is_help=True, help="Write the rewritten network for other runtimes.")

EPILOG = """
inputs and output, float32, any batch and length:

  mel    [batch, n_mel, frames], natural log, as `fastglow mel` writes it

  noise  [batch, frames * hop], standard normal times sigma (0.6 is usual)

  audio  [batch, frames * hop]

The file's metadata hold sampling_rate and hop_length. One row at a time, or rows of one length: a
shorter row of a padded batch hears the padding at its end.

example:

  fastglow export onnx waveglow_256channels.pt -o waveglow.onnx
"""


@app.callback()
def _group() -> None:
    pass


@app.command("onnx", epilog=options.flowing(EPILOG))
def onnx_command(
    model: Annotated[
        str, typer.Argument(help="A .pt, .pth or .safetensors file, a folder, or a voice's name.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="A .onnx file.")],
    conditioning: Annotated[
        str,
        typer.Option(
            help="published (small file) or phases (fewer operations; 5 to 7 times the size)."
        ),
    ] = "published",
    hop: options.Hop = None,
    rate: options.Rate = None,
    dialect: options.Dialect = None,
) -> None:
    """Write an ONNX graph, for ONNX Runtime, OpenVINO, C++ and mobile programs."""
    from fastglow.arguments import choose
    from fastglow.atomic import make_folder
    from fastglow.checkpoint import load_weights
    from fastglow.errors import InputError
    from fastglow.export.onnx import export_onnx
    from fastglow.plan import Plan
    from fastglow.voices import find_voice

    choose("conditioning", conditioning, ("published", "phases"))
    if out.suffix != ".onnx":
        raise InputError(f"--out {out}: expected a name ending in .onnx")
    weights = load_weights(find_voice(model), hop=hop, rate=rate, dialect=dialect)
    plan = Plan(weights, "phases" if conditioning == "phases" else "published")
    make_folder(out.parent)
    export_onnx(plan, out)
    typer.echo(f"wrote {out} ({out.stat().st_size / 1e6:.0f} MB, {conditioning} conditioning)")
