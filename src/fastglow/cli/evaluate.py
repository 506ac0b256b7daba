"""``fastglow evaluate``: how near a voice comes to the recordings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastglow.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from fastglow.config import WaveGlowConfig
    from fastglow.evaluate.record import FileScores, Result
    from fastglow.evaluate.run import Evaluation, Generate

WIDTH = 150  # columns of a table where nobody watches

EPILOG = """
examples:

  fastglow evaluate recordings/         the shipped voice beside Griffin-Lim

  fastglow evaluate a.wav b.flac --model my_model.pt --report scores.html

  fastglow evaluate recordings/ --generated out/ --json theirs.json

metrics:

  PESQ      ITU-T P.862.2; 4.64 is the original itself

  STOI      intelligibility, at most 1

  MOS       listeners' opinion, 1 to 5, as distillmos (if it is installed)
  predicts it

  MCD       mel-cepstral distortion in dB: 13 coefficients, 0 to 8 kHz, no
  time warping; compare it with figures of this command only

  mel L1    mean difference of the natural-log mels that the voice reads

  STFT      spectral convergence + log magnitude at three resolutions

  F0 V/UV   RMSE of the pitch in cents where both are voiced; frames voiced
  in one only, in %

  line 1-3  WaveGlow's whistles: dB of the tones at 1/8, 2/8 and 3/8 of the
  rate over what is around them; near the original's is good

  hum       dB of the multiples of rate / hop over what lies between them:
  where the mel stands still, a weak vocoder repeats itself every hop

  floor     dB of the quietest 5 % of the frames: hiss between the words

  peak      largest magnitude; above 1 a PCM file clips it

n/a: too short, silent, or nothing voiced. An interval says how far the
mean would move with other files of the same kind; take 20 or more.
"""


def command(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Recordings (.wav .flac .ogg .mp3) or folders of them.", show_default=False
        ),
    ] = None,
    model: options.Model = None,
    generated: Annotated[
        Path | None,
        typer.Option(
            help="Judge the files of the same names in this folder instead of vocoding. "
            "They must be aligned with the recordings."
        ),
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Griffin-Lim from the same mel.")
    ] = True,
    sigma: options.Sigma = 0.6,
    seed: Annotated[int, typer.Option(help="The same seed gives the same figures.", min=0)] = 0,
    denoise: Annotated[
        float, typer.Option(help="Strength of the bias denoiser, as in vocode.", min=0.0)
    ] = 0.0,
    match_mel: Annotated[
        float | None,
        typer.Option(
            help="Strength of mel matching. Default: 1, as vocode has it for audio files.",
            min=0.0,
            max=1.0,
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures and settings.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a page with spectrograms side by side (.html), in one file."),
    ] = None,
    pictures: Annotated[
        int, typer.Option(help="Files whose spectrograms the report shows.", min=0)
    ] = 8,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    threads: options.Threads = None,
    hop: options.Hop = None,
    rate: options.Rate = None,
    dialect: options.Dialect = None,
    quiet: options.Quiet = False,
) -> None:
    """Score a voice, or other vocoders' files, against the recordings that the mels came from.

    Every recording is turned into a mel and back (copy-synthesis), then compared with itself.
    Needs the extra `evaluate`.
    """
    from fastglow import __version__
    from fastglow.arguments import check_settings
    from fastglow.audio.files import AUDIO_SUFFIXES
    from fastglow.cli.inputs import find_sources
    from fastglow.evaluate import libraries
    from fastglow.evaluate.record import Result
    from fastglow.noise import check_seed

    for name in libraries.METRICS:
        libraries.optional(name)
    check_settings(sigma=sigma, denoise=denoise, match_mel=match_mel or 0.0)
    check_seed(seed)
    _check_outputs(json_file, report)
    sources = find_sources(inputs or [], AUDIO_SUFFIXES, leave_out=generated)
    loading = {"hop": hop, "rate": rate, "dialect": dialect}
    if generated:
        config, generate, about = _from_files(generated, model, loading)
    else:
        loading |= {"device": device, "precision": precision, "threads": threads}
        config, generate, about = _from_voice(model, loading, seed, sigma, denoise, match_mel)
    evaluation = _evaluation(config, generate, baseline, seed, quiet)
    drawn = pictures if report else 0
    scores, images, failed = _run(evaluation, sources, about["voice"], drawn, quiet)
    packages = libraries.versions(libraries.METRICS + (libraries.MOS if evaluation.mos else ()))
    versions = {"fastglow": __version__} | packages
    settings = about | {"baseline": baseline, "seed": seed, "sampling_rate": config.sampling_rate}
    result = Result(about["voice"], settings, versions, scores, failed)
    _show(result, quiet)
    _save(result, images, json_file, report, quiet)
    if failed:
        for line in failed:
            typer.echo(f"error: {line}", err=True)
        raise typer.Exit(2)


def _check_outputs(json_file: Path | None, report: Path | None) -> None:
    """Refuse or prepare the outputs before the work, not after it."""
    from fastglow.atomic import make_folder
    from fastglow.errors import InputError
    from fastglow.evaluate import libraries

    if report:
        if report.suffix.lower() != ".html":
            raise InputError(f"--report {report}: expected a name ending in .html")
        libraries.optional("matplotlib")
    for path in filter(None, (json_file, report)):
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name a file")
        make_folder(path.parent)


def _from_voice(
    model: str | None,
    loading: dict[str, Any],
    seed: int,
    sigma: float,
    denoise: float,
    match_mel: float | None,
) -> tuple[WaveGlowConfig, Generate, dict[str, Any]]:
    """A voice's config, what generates, and what the record says of it."""
    from fastglow.arguments import Manner
    from fastglow.audio.match import MelMatcher, match_strength
    from fastglow.vocoder import Float32, Vocoder
    from fastglow.voices import find_voice

    vocoder = Vocoder.load(model, **loading)
    strength = match_strength(match_mel, vocoder.config, recorded=True)
    if strength:
        MelMatcher(vocoder.config)  # refuses a model that cannot be matched, before any file
    manner = Manner(sigma=sigma, denoise=denoise, match_mel=strength)

    def generate(place: Path, mel: Float32) -> Float32:
        return vocoder.synthesize(mel, seed=seed, **manner)

    path = find_voice(model).resolve()
    about = {
        "voice": path.name if path.is_dir() else path.stem,
        "sha256": vocoder.weights.provenance.sha256,
        "device": vocoder.engine.device,
        "precision": vocoder.engine.precision,
        **manner,
    }
    return vocoder.config, generate, about


def _from_files(
    folder: Path, model: str | None, loading: dict[str, Any]
) -> tuple[WaveGlowConfig, Generate, dict[str, Any]]:
    """The same for files that are there; the model only says what its mels are."""
    from fastglow.audio.files import AUDIO_SUFFIXES
    from fastglow.checkpoint import load_weights
    from fastglow.evaluate.run import generated_files
    from fastglow.voices import find_voice

    config = load_weights(find_voice(model), **loading).config
    generate = generated_files(folder, config, AUDIO_SUFFIXES)
    return config, generate, {"voice": folder.resolve().name, "generated": True}


def _evaluation(
    config: WaveGlowConfig, generate: Generate, baseline: bool, seed: int, quiet: bool
) -> Evaluation:
    from fastglow.evaluate.levels import find_mos_predictor
    from fastglow.evaluate.run import Evaluation

    mos, note = find_mos_predictor()
    if note and not quiet:
        typer.echo(f"note: {note}", err=True)
    return Evaluation(config, generate, baseline, seed, mos)


def _run(
    evaluation: Evaluation,
    sources: list[tuple[Path, Path]],
    voice: str,
    pictures: int,
    quiet: bool,
) -> tuple[list[FileScores], list[tuple[str, bytes]], list[str]]:
    """Every file's scores, the first files' spectrograms, and a line for each that failed."""
    from fastglow.cli.progress import Progress
    from fastglow.errors import FastglowError

    scores: list[FileScores] = []
    images: list[tuple[str, bytes]] = []
    failed: list[str] = []
    with Progress(len(sources), hidden=quiet) as progress:
        for source, place in sources:
            try:
                signals, notes = evaluation.signals(source, place)
            except FastglowError as error:
                failed.append(str(error) if str(source) in str(error) else f"{source}: {error}")
            else:
                for note in notes:
                    progress.warn(note)
                scores.append(evaluation.score(place, signals))
                if len(images) < pictures:
                    images.append((place.as_posix(), _picture(signals, voice, evaluation)))
            progress.advance(place.name)
    return scores, images, failed


def _picture(signals: dict[str, Any], voice: str, evaluation: Evaluation) -> bytes:
    from fastglow.evaluate.pictures import spectrograms
    from fastglow.evaluate.table import named

    titled = [(named(system, voice), wave) for system, wave in signals.items()]
    return spectrograms(titled, evaluation.config.sampling_rate)


def _console() -> Console:
    """Standard output; wide enough for the tables where it is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def _show(result: Result, quiet: bool) -> None:
    from fastglow.evaluate.table import print_result

    if result.files and not quiet:
        print_result(_console(), result)


def _save(
    result: Result,
    images: list[tuple[str, bytes]],
    json_file: Path | None,
    report: Path | None,
    quiet: bool,
) -> None:
    """Write what was asked for; a report needs at least one file that was judged."""
    written = []
    if json_file:
        result.write(json_file)
        written.append(json_file)
    if report and result.files:
        from fastglow.evaluate.report import write_report

        write_report(report, result, images)
        written.append(report)
    if not quiet:
        for path in written:
            typer.echo(f"wrote {path}")
