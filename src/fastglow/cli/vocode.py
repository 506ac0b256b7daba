"""``fastglow vocode``: mels or audio in, speech out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastglow.cli import options

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastglow.cli.inputs import Task
    from fastglow.vocoder import Float32, Vocoder

FORMATS = (".wav", ".flac")


@dataclass(slots=True)
class Totals:
    """What a run did."""

    done: int = 0
    skipped: int = 0
    clipped: int = 0
    seconds: float = 0.0
    computing: float = 0.0
    failed: list[str] = field(default_factory=list)

    @property
    def rtf(self) -> float:
        """Compute seconds a second of audio."""
        return self.computing / self.seconds if self.seconds else 0.0


def command(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Mels (.npy .npz .pt .safetensors), audio for copy-synthesis "
            "(.wav .flac .ogg .mp3), or folders of them.",
            show_default=False,
        ),
    ] = None,
    out: options.Out = Path("out"),
    model: options.Model = None,
    list_file: Annotated[
        Path | None, typer.Option("--list", help="A text file with one input path a line.")
    ] = None,
    sigma: options.Sigma = 0.6,
    seed: Annotated[int, typer.Option(help="The same seed gives the same audio.", min=0)] = 0,
    denoise: Annotated[
        float, typer.Option(help="Strength of the bias denoiser; try 0.01 to 0.1.", min=0.0)
    ] = 0.0,
    mel_scale: Annotated[
        str, typer.Option(help="Convention of the mels; `fastglow doctor` tells which.")
    ] = "ln",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    conditioning: options.Conditioning = "auto",
    threads: options.Threads = None,
    file_format: Annotated[str, typer.Option("--format", help="wav or flac.")] = "wav",
    subtype: Annotated[str, typer.Option(help="PCM_16, PCM_24 or (wav) FLOAT.")] = "PCM_16",
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave outputs that are there already.")
    ] = False,
    hop: options.Hop = None,
    rate: options.Rate = None,
    dialect: options.Dialect = None,
    quiet: options.Quiet = False,
) -> None:
    """Turn mel spectrograms into speech.

    Audio files are turned into mels first (copy-synthesis), which shows what the model can do
    at best. Files are written whole or not at all; bad inputs are reported and the rest done.
    """
    from fastglow.arguments import check_settings
    from fastglow.audio import check_audio_format, check_mel_scale
    from fastglow.audio.files import AUDIO_SUFFIXES
    from fastglow.audio.mels import SUFFIXES
    from fastglow.cli.inputs import plan_tasks, read_list
    from fastglow.noise import check_seed
    from fastglow.vocoder import Vocoder

    suffix = f".{file_format.lower()}"
    if out.suffix.lower() in FORMATS:
        suffix = out.suffix.lower()
    check_audio_format(suffix, subtype)
    check_mel_scale(mel_scale)
    check_settings(sigma, denoise)
    check_seed(seed)
    sources = [*(inputs or []), *(read_list(list_file) if list_file else [])]
    tasks = plan_tasks(sources, out, suffix, SUFFIXES + AUDIO_SUFFIXES)
    vocoder = Vocoder.load(
        model,
        device=device,
        precision=precision,  # type: ignore[arg-type]  # checked by load
        conditioning=conditioning,  # type: ignore[arg-type]
        threads=threads,
        hop=hop,
        rate=rate,
        dialect=dialect,
    )

    def synthesize(mel: Float32) -> Float32:
        return vocoder.synthesize(mel, sigma=sigma, seed=seed, denoise=denoise)

    totals = _run(tasks, vocoder, synthesize, mel_scale, subtype, skip_existing, quiet)
    if not quiet:
        typer.echo(_summary(totals, out))
    if totals.failed:
        raise typer.Exit(2)


def _run(
    tasks: list[Task],
    vocoder: Vocoder,
    synthesize: Callable[[Float32], Float32],
    mel_scale: str,
    subtype: str,
    skip_existing: bool,
    quiet: bool,
) -> Totals:
    from fastglow.cli.progress import Progress
    from fastglow.errors import FastglowError

    totals = Totals()
    with Progress(len(tasks), hidden=quiet) as progress:
        for task in tasks:
            if skip_existing and task.target.exists():
                totals.skipped += 1
            else:
                try:
                    _one(task, vocoder, synthesize, mel_scale, subtype, totals, progress.warn)
                except FastglowError as error:
                    totals.failed.append(str(task.source))
                    known = str(task.source) in str(error) or str(task.target) in str(error)
                    progress.error(str(error) if known else f"{task.source}: {error}")
                except KeyboardInterrupt:
                    progress.error(f"interrupted; {totals.done} files written so far are whole")
                    raise
            progress.advance(f"RTF {totals.rtf:.3f}")
    return totals


def _one(
    task: Task,
    vocoder: Vocoder,
    synthesize: Callable[[Float32], Float32],
    mel_scale: str,
    subtype: str,
    totals: Totals,
    warn: Callable[[str], None],
) -> None:
    """Read, synthesise, write one file."""
    from fastglow.atomic import make_folder
    from fastglow.audio import write_audio

    mel = _read(task, vocoder, mel_scale, warn)
    began = time.perf_counter()
    audio = synthesize(mel)
    totals.computing += time.perf_counter() - began
    make_folder(task.target.parent)
    report = write_audio(task.target, audio, vocoder.sampling_rate, subtype=subtype)
    if report.clipped:
        warn(f"{task.target}: {report.clipped} samples over full scale were clipped")
    totals.clipped += report.clipped
    totals.seconds += len(audio) / vocoder.sampling_rate
    totals.done += 1


def _read(task: Task, vocoder: Vocoder, mel_scale: str, warn: Callable[[str], None]) -> Float32:
    """The task's mel, converted to natural log; warns if it does not look like one."""
    from fastglow.audio import convert_mel, diagnose, mel_spectrogram, read_audio, read_mel
    from fastglow.errors import InputError

    if task.is_audio:
        wave, rate = read_audio(task.source, vocoder.sampling_rate)
        return mel_spectrogram(wave, rate, config=vocoder.config)
    mel = convert_mel(read_mel(task.source, vocoder.config), mel_scale, vocoder.config)
    diagnosis = diagnose(mel, vocoder.config)
    if diagnosis.verdict == "constant":
        raise InputError(f"{task.source}: {diagnosis.summary}; nothing to say")
    if not diagnosis.ok:
        mend = f" (mend: {diagnosis.mend})" if diagnosis.mend else ""
        warn(f"{task.source}: {diagnosis.summary}{mend}")
    return mel


def _summary(totals: Totals, out: Path) -> str:
    parts = [f"{totals.done} file{'s' if totals.done != 1 else ''}"]
    if totals.seconds:
        parts.append(
            f"{totals.seconds:.1f} s of audio in {totals.computing:.2f} s "
            f"(RTF {totals.rtf:.3f}, {1 / max(totals.rtf, 1e-9):.1f} x real time)"
        )
    if totals.skipped:
        parts.append(f"{totals.skipped} skipped")
    if totals.clipped:
        parts.append(f"{totals.clipped} samples clipped")
    if totals.failed:
        parts.append(f"{len(totals.failed)} failed")
    return f"{', '.join(parts)} -> {out}"
