"""``fastglow vocode``: mels or audio in, speech out."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from fastglow.cli import options

FORMATS = (".wav", ".flac")
OUT = Path("out")
STDOUT = (OUT, Path("-"))  # of --stream: where no file is named


def command(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Mels (.npy .npz .pt .safetensors), audio for copy-synthesis "
            "(.wav .flac .ogg .mp3), or folders of them.",
            show_default=False,
        ),
    ] = None,
    out: options.Out = OUT,
    model: options.Model = None,
    list_file: Annotated[
        Path | None, typer.Option("--list", help="A text file with one input path a line.")
    ] = None,
    sigma: options.Sigma = 0.6,
    seed: Annotated[int, typer.Option(help="The same seed gives the same audio.", min=0)] = 0,
    denoise: Annotated[
        float, typer.Option(help="Strength of the bias denoiser; try 0.01 to 0.1.", min=0.0)
    ] = 0.0,
    match_mel: Annotated[
        float | None,
        typer.Option(
            help="How far to draw the audio's mel to the given one, phases kept, 0 to 1. Default: "
            "1 for audio files; 0 for mels, because those that text-to-speech models make sound "
            "duller so. 1 is best for mels of recordings.",
            min=0.0,
            max=1.0,
        ),
    ] = None,
    mel_scale: Annotated[
        str, typer.Option(help="Convention of the mels; `fastglow doctor` tells which.")
    ] = "ln",
    device: options.Devices = "auto",
    precision: options.Precision = "auto",
    conditioning: options.Conditioning = "auto",
    threads: options.Threads = None,
    file_format: Annotated[
        str, typer.Option("--format", help="wav or flac; of --stream wav or raw.")
    ] = "wav",
    subtype: Annotated[str, typer.Option(help="PCM_16, PCM_24 or (wav) FLOAT.")] = "PCM_16",
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave outputs that are there already.")
    ] = False,
    together: Annotated[
        int,
        typer.Option(
            help="Mel frames computed at once: many make short files faster and take memory. "
            "Default: 16000 on a GPU, 2000 on a CPU.",
            min=0,
            show_default=False,
        ),
    ] = 0,
    shard: Annotated[
        str | None,
        typer.Option(
            help="i/n: every n-th file from the i-th on, for n processes, GPUs or machines.",
            metavar="i/n",
        ),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            help="Keep what became of each file in this .jsonl, a line each. The same command "
            "goes on from there: what is done is left, what failed is tried again.",
            metavar="FILE.jsonl",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(help="local, or ray: the workers of a Ray cluster, which see the same files."),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="The cluster: auto or HOST:PORT. Default: one of this machine.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Vocoders on the Ray cluster, each with a GPU, or with --threads CPUs (1). "
            "Default: as many as it has room for.",
            min=1,
            show_default=False,
        ),
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(
            help="Speak while the mel comes in: float32 frames, one after the other, from this "
            "pipe or file, - for standard input. Audio goes to standard output, or to --out.",
            metavar="-",
            show_default=False,
        ),
    ] = None,
    frames: Annotated[
        int,
        typer.Option(help="Of --stream: new frames that are computed together.", min=1),
    ] = 128,
    lookahead: Annotated[
        int | None,
        typer.Option(
            help="Of --stream: frames that must have come past a frame before its audio is given. "
            "Default: all that it depends on (96: 1.1 s). 12 cost 0.08 of PESQ, 6 cost 0.45.",
            min=0,
            show_default=False,
        ),
    ] = None,
    hop: options.Hop = None,
    rate: options.Rate = None,
    dialect: options.Dialect = None,
    quiet: options.Quiet = False,
) -> None:
    """Turn mel spectrograms into speech.

    Audio files are turned into mels first (copy-synthesis) and the result is matched to them,
    which brings it nearer; with --match-mel 0 it is the network's alone. Files are
    written whole or not at all; bad inputs are reported and the rest done. After a crash, the
    same command with the same --journal does what is missing (where outputs go beside their
    inputs, with --skip-existing). No input is overwritten. Files sound
    as each does alone, bit for bit, however they are computed together or spread over devices,
    --shard processes or a Ray cluster; a process that dies loses no file.
    """
    from fastglow.arguments import check_settings, choose
    from fastglow.audio import check_audio_format, check_mel_scale
    from fastglow.audio.files import AUDIO_SUFFIXES
    from fastglow.audio.mels import SUFFIXES
    from fastglow.cli.corpus import local, on_ray, vocode_files
    from fastglow.cli.inputs import plan_tasks, read_list, shard_of
    from fastglow.cli.journal import Journal, outputs_of, stamp_of
    from fastglow.cli.live import RAW, WAV, Live
    from fastglow.errors import InputError
    from fastglow.job import Recipe
    from fastglow.noise import check_seed

    suffix = _suffix(out, file_format, stream is not None)
    check_audio_format(WAV if stream is not None and suffix == RAW else suffix, subtype)
    check_mel_scale(mel_scale)
    check_seed(seed)
    choose("engine", engine, ("local", "ray"))
    if engine == "local" and (ray_address or workers):
        raise InputError("--ray-address and --workers are for --engine ray")
    recipe = Recipe(
        model=model,
        device=device,
        precision=precision,
        conditioning=conditioning,
        threads=threads,
        hop=hop,
        rate=rate,
        dialect=dialect,
        sigma=sigma,
        seed=seed,
        denoise=denoise,
        match_mel=match_mel,
        mel_scale=mel_scale,
        subtype=subtype,
        together=together,
    )
    check_settings(**recipe.manner)
    if stream is not None:
        many = (inputs, list_file, journal, shard, skip_existing, engine == "ray")
        if any(many):
            raise InputError(
                "--stream takes one mel as it comes: without inputs, --list, --journal, --shard, "
                "--skip-existing and --engine"
            )
        vocoder = recipe.load().vocoder
        live = Live(vocoder, recipe.manner, seed, mel_scale, subtype, frames, lookahead)
        live.run(stream, None if out in STDOUT else out, suffix)
        return
    sources = [*(inputs or []), *(read_list(list_file) if list_file else [])]
    written = cache(lambda: outputs_of(journal) if journal else {})

    def is_output(path: Path) -> bool:
        return skip_existing or written().get(path.resolve()) == stamp_of(path)

    tasks = plan_tasks(sources, out, suffix, SUFFIXES + AUDIO_SUFFIXES, is_output)
    tasks = shard_of(tasks, shard) if shard else tasks
    place = on_ray(recipe, ray_address, workers) if engine == "ray" else local(recipe)
    with (
        place as (facts, run),
        Journal(journal, recipe.settings(facts)) if journal else nullcontext() as kept,
    ):
        totals = vocode_files(
            tasks, run, facts.sampling_rate, skip_existing=skip_existing, journal=kept, quiet=quiet
        )
    if not quiet:
        typer.echo(totals.summary(out))
    if totals.failed:
        raise typer.Exit(2)


def _suffix(out: Path, file_format: str, streams: bool) -> str:
    """Of the audio: what --out ends in where it names a file, else the --format."""
    from fastglow.cli.live import RAW, WAV
    from fastglow.errors import InputError

    asked, named = f".{file_format.lower()}", out.suffix.lower()
    if streams and out in STDOUT:
        if asked not in (WAV, RAW):
            raise InputError(
                f"--format {file_format}: --stream writes {WAV} or {RAW} to standard output; "
                "others need --out FILE"
            )
        return asked
    known = (*FORMATS, RAW) if streams else FORMATS
    if streams and named not in known:
        raise InputError(f"{out}: --stream writes a file that ends in {', '.join(known)}")
    if named not in known or out.is_dir():
        return asked
    if asked not in (WAV, named):
        raise InputError(f"--format {file_format} with --out {out}: name one kind of file")
    return named
