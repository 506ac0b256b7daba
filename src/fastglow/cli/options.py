"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A .pt, .pth or .safetensors file, a folder, or a shipped voice's name. "
        "Default: the shipped voice.",
        show_default=False,
    ),
]
Hop = Annotated[
    int | None,
    typer.Option(help="Samples a mel frame, where the checkpoint does not say.", min=1),
]
Rate = Annotated[
    int | None,
    typer.Option(help="Sampling rate in Hz, where the checkpoint does not say.", min=1000),
]
Dialect = Annotated[
    str | None,
    typer.Option(help="glow or glow_old, for a bare state_dict that cannot say."),
]
Threads = Annotated[
    int | None,
    typer.Option(help="CPU threads. Default: all that this process may use.", min=1),
]
Device = Annotated[
    str, typer.Option(help="auto (a GPU that can be used, else the CPU), cpu, cuda or cuda:N.")
]
Devices = Annotated[
    str,
    typer.Option(
        help="auto (a GPU that can be used, else the CPU), cpu, cuda or cuda:N; several "
        "(cuda:0,cuda:1) or all GPUs (cuda:all): a process on each."
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="auto (fp16 on a GPU, fp32 on a CPU); on a GPU fp16, bf16, tf32, fp32; on a CPU "
        "fp32, bf16 (half the time, needs AVX-512 BF16), int8 (a third, needs AVX-512 VNNI)."
    ),
]
Conditioning = Annotated[
    str,
    typer.Option(help="auto, phases or published: the form of the conditioning. See info."),
]
Sigma = Annotated[float, typer.Option(help="Scale of the noise.", min=0.0)]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where to write.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no summary.")]


def flowing(text: str | None) -> str:
    """Text with a line a paragraph, for the terminal to wrap: Typer keeps the lines it is given.

    Brackets are escaped, which it would take for markup.
    """
    return re.sub(r"(?<=\S)[ \t]*\n[ \t]*(?=\S)", " ", text or "").replace("[", r"\[")
