"""``fastglow info``: what a checkpoint is and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastglow.cli import options

if TYPE_CHECKING:
    from fastglow.checkpoint import Weights
    from fastglow.engines.choose import Choice


def command(
    model: Annotated[
        str | None,
        typer.Argument(help="A checkpoint or a voice's name.", show_default="the shipped voice"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    hop: options.Hop = None,
    rate: options.Rate = None,
    dialect: options.Dialect = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    warm: Annotated[
        bool,
        typer.Option(
            "--warm",
            help="Also compile everything that the model needs on this device, so that later "
            "processes find it in the caches on disk.",
        ),
    ] = False,
) -> None:
    """Show a model's hyperparameters, dialect, checksum and operations, and what would run it."""
    import json

    from fastglow.checkpoint import load_weights
    from fastglow.engines.choose import choose_engine
    from fastglow.voices import find_voice

    weights = load_weights(find_voice(model), hop=hop, rate=rate, dialect=dialect)
    choice = choose_engine(weights.config, device, precision)
    facts = describe(weights, choice)
    if warm:
        choice.load(weights).warm()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, Text(_line(value)))
    Console().print(table)


def describe(weights: Weights, choice: Choice) -> dict[str, Any]:
    """Everything that ``info`` shows, by name."""
    from fastglow.plan.cost import Form, cost

    source, config = weights.provenance, weights.config
    published = cost(config, "published")
    form: Form = (
        "rewritten" if choice.conditioning == "phases" else "rewritten, published conditioning"
    )
    rewritten = cost(config, form)
    return {
        "path": source.path,
        "container": source.container,
        "dialect": source.dialect,
        "sha256": source.sha256,
        "parameters": weights.parameters,
        "config": config.to_dict(),
        "device": choice.device,
        "precision": choice.precision,
        "conditioning": choice.conditioning,
        "gpu": choice.gpu or "not looked for",
        "flop_per_sample": {
            "published": round(published.flop_per_sample),
            "rewritten": round(rewritten.flop_per_sample),
        },
        "weight_bytes_fp32": {
            "published": published.bytes(4),
            "rewritten": rewritten.bytes(4),
        },
        "notes": list(source.notes),
    }


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_line(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
