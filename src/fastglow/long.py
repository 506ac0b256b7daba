"""Mels whose audio is too long to be held: computed and written part by part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from fastglow.arguments import Float32, Manner
from fastglow.atomic import make_folder
from fastglow.audio import WriteReport, convert_mel, open_audio
from fastglow.audio.stored import StoredMel
from fastglow.audio.writing import check_length
from fastglow.vocoder import Vocoder

STRETCH = {"cpu": 512, "cuda": 48_000}  # frames of a part; on a GPU six pushes


def vocode_long(
    vocoder: Vocoder,
    mel: Float32 | StoredMel,
    target: Path,
    *,
    scale: str,
    subtype: str,
    seed: int,
    manner: Manner,
) -> WriteReport:
    """Reads a part, computes another and writes a third at a time.

    Args:
        vocoder: Of a model that streams.
        mel: [n_mel, frames] In natural log, or a mel on disk.
        target: The audio file, whose folder is made.
        scale: Of a mel on disk.
        subtype: Of the audio file.
        seed: Of the noise.
        manner: How it is spoken.

    Raises:
        InputError: The mel's file was changed, or the audio is too long for its format.
        OutputError: The file cannot be written.
        EngineError: The audio is not finite.
    """
    config, rate = vocoder.config, vocoder.sampling_rate
    width = STRETCH["cpu" if vocoder.engine.device == "cpu" else "cuda"]
    if isinstance(mel, StoredMel):
        parts = (convert_mel(part, scale, config) for part in mel.parts(width))
    else:
        held = mel
        parts = (held[:, at : at + width] for at in range(0, mel.shape[1], width))
    make_folder(target.parent)
    check_length(target, config.samples(mel.shape[1]), subtype)  # hours before it is met
    with open_audio(target, rate, subtype=subtype) as writer, ThreadPoolExecutor(2) as pool:
        audios = vocoder.stream(_ahead(parts, pool), seed=seed, frames=width, **manner)
        last: Future[None] | None = None
        for audio in audios:  # written while the next one is computed
            if last:
                last.result()
            last = pool.submit(writer.write, audio)
        if last:
            last.result()
    return writer.report


def _ahead(parts: Iterable[Float32], pool: ThreadPoolExecutor) -> Iterator[Float32]:
    """Each part, while the next one is read in a thread."""
    source = iter(parts)
    coming = pool.submit(next, source, None)
    while (part := coming.result()) is not None:
        coming = pool.submit(next, source, None)
        yield part
