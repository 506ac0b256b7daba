"""``fastglow bench``: how fast this machine is, beside other programs in the same run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from fastglow.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from fastglow.bench.devices import Device
    from fastglow.bench.peers import Peer
    from fastglow.bench.record import Case, Result
    from fastglow.bench.sweep import Point, Settings, Sweep

Value = TypeVar("Value", int, float)
WIDTH = 120  # columns of a table

EPILOG = """
examples:

  fastglow bench                                  256 channels, 1 and 10 s, every peer installed

  fastglow bench --peers none --seconds 2         a quick look at this machine

  fastglow bench --channels 256,512 --batch 1,8 --precision fp16,fp32 --plot speed.png

  fastglow bench --device cuda --kernels --peers compile --json run.json

  fastglow bench --model my_model.pt --device cpu --threads 1

  fastglow bench --from run.json --plot speed.png    show an earlier run again

columns:

  error          largest difference from the float64 reference over the peak; no speed is shown
  for a candidate over the bar: fp16 and tf32 2e-3, bf16 1.5e-2, int8 3e-2, fp32 5e-6 or twice
  PyTorch's own

  p20 p50 p80    of one inference; on a GPU from mel and noise that lie there to audio that stays

  TFLOP/s        of the arithmetic that the row really does: the published network costs 1.4 to
  1.7 times the operations of the rewritten one, so compare times, not TFLOP/s

  % of ceiling   that against a large matrix product in the same precision and run

  × best peer    the time of the fastest peer that is no less precise over this row's

  end to end     a user's call: mel in, audio out, as numpy arrays, the noise drawn in between

Weights are random at the published shapes, so no checkpoint is needed. Quote p50 from a quiet
machine; p20 and p80 far apart mean that it was not.
"""


def command(
    channels: Annotated[
        str | None,
        typer.Option(help="WN channels of random models, for example 64,256.", show_default="256"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A checkpoint or voice, in place of random weights."),
    ] = None,
    seconds: Annotated[str, typer.Option(help="Lengths of audio, for example 0.5,1,10.")] = "1,10",
    batch: Annotated[str, typer.Option(help="Rows, for example 1,8.")] = "1",
    precision: Annotated[
        str, typer.Option(help="Of fastglow, for example fp16,fp32. auto: fp16 on CUDA, else fp32.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    peers: Annotated[
        str,
        typer.Option(
            help="all, none or names: on a CPU pytorch, pytorch-bf16, onnxruntime, openvino, "
            "openvino-bf16; on CUDA pytorch-fp32, pytorch-tf32, pytorch-fp16, graph, compile."
        ),
    ] = "all",
    conditioning: Annotated[str, typer.Option(help="auto, phases or published.")] = "auto",
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Also time each kernel against its floor (CUDA).")
    ] = False,
    runs: Annotated[int, typer.Option(help="Rounds that count, at least.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Of weights, mel and noise.", min=0)] = 0,
    threads: options.Threads = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write the figures; a folder: under the machine's name."),
    ] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", help="Draw speed against length and batch (.png).")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Show or draw the --json of an earlier run.")
    ] = None,
    hop: options.Hop = None,
    rate: options.Rate = None,
    dialect: options.Dialect = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure speed, the audio's correctness first, beside other programs in the same run."""
    from fastglow.arguments import choose
    from fastglow.bench import record, table
    from fastglow.errors import InputError

    console = open_console()
    _check_outputs(json_file, plot_file)
    if source:
        result = record.read(source)
        table.print_result(console, result)
        _save(result, json_file, plot_file)
        return
    _require("torch", "bench", "the float64 reference needs PyTorch")
    from fastglow.bench.peers import choose as choose_peers
    from fastglow.bench.sweep import Settings

    choose("device", device, ("auto", "cpu", "cuda"))
    choose("conditioning", conditioning, ("auto", "phases", "published"))
    if model and channels:
        raise InputError("--channels is for random weights; leave it out beside --model")
    place = open_device(device, threads)
    settings = Settings(
        channels=numbers("--channels", channels or "256", int, 1, 4096),
        model=model,
        options={"hop": hop, "rate": rate, "dialect": dialect},
        seconds=numbers("--seconds", seconds, float, 0.01, 3600),
        batches=numbers("--batch", batch, int, 1, 4096),
        precisions=_precisions(precision, place),
        conditioning=conditioning,
        runs=runs,
        seed=seed,
        kernels=kernels,
    )
    rivals, notes = choose_peers(peers, place.name)
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    result = _run(settings, place, rivals, console, quiet)
    _save(result, json_file, plot_file)
    _judge(result)


def open_console() -> Console:
    """Standard output; wide enough for the tables where it is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def _require(module: str, extra: str, why: str) -> None:
    """Raise unless an optional module is installed."""
    from fastglow.errors import InputError

    if importlib.util.find_spec(module) is None:
        raise InputError(f"{why}: pip install 'fastglow[{extra}]'")


def _check_outputs(json_file: Path | None, plot_file: Path | None) -> None:
    """Make the folders of the outputs before the work, not after it."""
    from fastglow.atomic import make_folder

    if json_file:
        make_folder(json_file.parent if json_file.suffix == ".json" else json_file)
    if plot_file:
        check_plot(plot_file)


def check_plot(path: Path) -> None:
    """Make a picture's folder.

    Raises:
        InputError: No picture can be drawn, or its name is none.
    """
    from fastglow.atomic import make_folder
    from fastglow.errors import InputError

    _require("matplotlib", "plot", "--plot needs matplotlib")
    if path.suffix != ".png":
        raise InputError(f"--plot {path}: expected a name ending in .png")
    make_folder(path.parent)


def open_device(name: str, threads: int | None) -> Device:
    """The place to measure on; "auto" is the GPU if PyTorch finds one.

    Raises:
        InputError: A GPU was asked for and there is none.
    """
    import torch

    from fastglow.bench.devices import CpuDevice

    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        from fastglow.bench.cuda import CudaDevice

        return CudaDevice()
    return CpuDevice(threads)


def numbers(
    option: str, text: str, kind: Callable[[str], Value], low: Value, high: Value
) -> tuple[Value, ...]:
    """Numbers with commas between them, each once.

    Raises:
        InputError: One is no number, or outside the range.
    """
    from fastglow.errors import InputError

    try:
        found = tuple(dict.fromkeys(kind(part) for part in text.split(",")))
    except ValueError:
        found = ()
    if not found or not all(low <= value <= high for value in found):
        raise InputError(
            f"{option} {text}: expected numbers from {low} to {high} with commas between them"
        )
    return found


def _precisions(text: str, device: Device) -> tuple[str, ...]:
    from fastglow.arguments import choose

    found = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if found == ("auto",):
        return device.precisions[:1]
    for precision in found:
        choose("precision", precision, device.precisions)
    return found


def _run(
    settings: Settings, device: Device, peers: Sequence[Peer], console: Console, quiet: bool
) -> Result:
    """Measure and print, case by case."""
    from fastglow.bench import machine, record, table
    from fastglow.bench.record import Ceilings, Result
    from fastglow.bench.sweep import Sweep
    from fastglow.cli.progress import Progress

    about = machine.describe(device.name, device.threads)
    precisions = dict.fromkeys([*settings.precisions, *(peer.precision for peer in peers)])
    ceilings = {}
    with Progress(len(precisions) + settings.kernels, hidden=quiet) as progress:
        for precision in precisions:
            progress.advance(f"ceiling in {precision}")
            ceilings[precision] = record.short(device.ceiling(precision) / 1e12)
        if settings.kernels:
            progress.advance("bandwidth")
        bandwidth = record.short(device.bandwidth() / 1e12) if settings.kernels else None
        limits = Ceilings(ceilings, bandwidth)
    table.print_header(console, about, limits)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    result = Result(date, device.name, settings.to_dict(), about, limits)
    with Sweep(settings, device, peers, limits) as sweep:
        for index, point in enumerate(sweep.points):
            case = _measure(sweep, point, f"case {index + 1} of {len(sweep.points)}: ", quiet)
            table.print_case(console, case)
            result = result.adding(case)
    if settings.kernels and not any(case.kernels for case in result.cases):
        typer.echo(f"note: the {device.name} engine cannot time its kernels one by one", err=True)
    return result


def _measure(sweep: Sweep, point: Point, place: str, quiet: bool) -> Case:
    from fastglow.cli.progress import Progress

    with Progress(sweep.ticks, hidden=quiet) as progress:
        return sweep.measure(point, lambda stage: progress.advance(place + stage))


def _save(result: Result, json_file: Path | None, plot_file: Path | None) -> None:
    from fastglow.bench import record

    if json_file:
        if json_file.suffix != ".json":
            json_file /= record.file_name(result)
        record.write(json_file, result)
        typer.echo(f"wrote {json_file}")
    if plot_file:
        from fastglow.bench.plot import plot

        plot(result, plot_file)
        typer.echo(f"wrote {plot_file}")


def _judge(result: Result) -> None:
    """Fail if fastglow itself has no speed: then something is broken.

    Raises:
        EngineError: It has none in some case.
    """
    from fastglow.bench.record import OURS
    from fastglow.errors import EngineError

    for case in result.cases:
        for row in case.rows:
            if row.name == OURS and row.refused:
                raise EngineError(f"{OURS} {row.precision}, {case.title}: {row.refused}")
