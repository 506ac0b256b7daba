"""``fastglow mel``: audio in, mel spectrograms out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastglow.cli import options


def command(
    inputs: Annotated[
        list[Path], typer.Argument(help="Audio files (.wav .flac .ogg .mp3) or folders of them.")
    ],
    out: options.Out = Path("mels"),
    model: options.Model = None,
    hop: options.Hop = None,
    rate: options.Rate = None,
    quiet: options.Quiet = False,
) -> None:
    """Make Tacotron 2 mel spectrograms (.npy, natural log) as the model expects them."""
    from fastglow.atomic import make_folder
    from fastglow.audio import mel_spectrogram, read_audio, write_mel
    from fastglow.audio.files import AUDIO_SUFFIXES
    from fastglow.checkpoint import load_weights
    from fastglow.cli.inputs import plan_tasks
    from fastglow.cli.progress import Progress
    from fastglow.errors import FastglowError, OutputError
    from fastglow.voices import find_voice

    tasks = plan_tasks(inputs, out, ".npy", AUDIO_SUFFIXES)
    config = load_weights(find_voice(model), hop=hop, rate=rate).config
    frames = done = failed = 0
    with Progress(len(tasks), hidden=quiet) as progress:
        for task in tasks:
            try:
                wave, found = read_audio(task.source, config.sampling_rate)
                mel = mel_spectrogram(wave, found, config=config)
                make_folder(task.target.parent)
                write_mel(task.target, mel)
                frames, done = frames + mel.shape[1], done + 1
            except OutputError as error:
                raise OutputError(f"{error}; what was written before is whole") from None
            except FastglowError as error:
                failed += 1
                known = str(task.source) in str(error) or str(task.target) in str(error)
                progress.error(str(error) if known else f"{task.source}: {error}")
            progress.advance(f"{frames} frames")
    if not quiet:
        seconds = frames * config.hop_length / config.sampling_rate
        mels = f"{done} mel{'s' if done != 1 else ''}"
        typer.echo(f"{mels}, {frames} frames ({seconds:.1f} s) -> {out}")
    if failed:
        raise typer.Exit(2)
