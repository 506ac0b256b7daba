"""``fastglow demo``: the shipped voice says a shipped sentence."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fastglow.cli import options

if TYPE_CHECKING:
    from fastglow.vocoder import Float32


def command(
    out: options.Out = Path("demo"),
    threads: options.Threads = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
) -> None:
    """Vocode a shipped LJ Speech mel: writes a wav and a picture of both spectrograms."""
    from fastglow.atomic import make_folder
    from fastglow.audio import read_audio, read_mel, write_audio
    from fastglow.vocoder import Vocoder
    from fastglow.voices import DEFAULT, FOLDER

    began = time.perf_counter()
    vocoder = Vocoder.load(
        device=device,
        precision=precision,  # type: ignore[arg-type]  # checked by load
        threads=threads,
    )
    loaded = time.perf_counter()
    mel = read_mel(FOLDER / "demo" / "mel.npy", vocoder.config)
    audio = vocoder.synthesize(mel, sigma=0.6, seed=0, match_mel=1)  # a recording's mel
    done = time.perf_counter()
    make_folder(out)
    wav = out / "demo.wav"
    write_audio(wav, audio, vocoder.sampling_rate)
    seconds, spent = len(audio) / vocoder.sampling_rate, done - loaded
    typer.echo(f"{DEFAULT}: {vocoder.engine.description}")
    typer.echo(
        f"{seconds:.2f} s of audio in {spent:.2f} s: RTF {spent / seconds:.3f}, "
        f"{seconds / spent:.1f} x real time (loaded in {loaded - began:.2f} s)"
    )
    typer.echo(f"wrote {wav}")
    original, _ = read_audio(FOLDER / "demo" / "original.flac", vocoder.sampling_rate)
    picture = out / "demo.png"
    if _plot(original, audio, vocoder.sampling_rate, picture):
        typer.echo(f"wrote {picture}")
    else:
        typer.echo("no picture: pip install 'fastglow[plot]' adds it")


def _plot(original: Float32, audio: Float32, rate: int, path: Path) -> bool:
    """Both spectrograms under each other; False if matplotlib is not installed."""
    try:
        from fastglow.audio.picture import compare_spectrograms
    except ImportError:
        return False
    compare_spectrograms({"original": original, "fastglow": audio}, rate, path)
    return True
