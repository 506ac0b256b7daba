"""Audio files, read at any rate and in any common format."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastglow.audio.mel import RATES, Float32, resample
from fastglow.errors import InputError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")  # taken for audio where a folder is named
BLOCK = 1 << 20  # samples at a time
SLACK = 64  # bytes; old converters counted a header with the samples
UNKNOWN = 0x7FFF0000  # bytes; headers written to a pipe state as many or more


def read_audio(path: str | os.PathLike[str], rate: int | None = None) -> tuple[Float32, int]:
    """Mono audio from a .wav, .flac, .ogg or .mp3 file, or any other that libsndfile reads.

    Args:
        path: The file; channels are averaged.
        rate: Hz to resample to; the file's own if left out.

    Returns:
        float32 [samples], nominally within [-1, 1], and its rate in Hz.

    Raises:
        InputError: The file is missing, damaged or empty, or holds NaN or infinite samples.
    """
    source = Path(path)
    wave, found = _decode(source)
    if not wave.size:
        raise InputError(f"{source}: holds no samples; record or export it again")
    if not RATES[0] <= found <= RATES[1]:
        raise InputError(f"{source}: a rate of {found} Hz; expected {RATES[0]} to {RATES[1]}")
    if not np.isfinite(wave).all():
        raise InputError(f"{source}: holds NaN or infinite samples; export it again")
    if rate is None or rate == found:
        return wave, found
    try:
        return resample(wave, found, rate).astype(np.float32, copy=False), rate
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _decode(source: Path) -> tuple[Float32, int]:
    """All samples, read in blocks: a header that promises too many allocates nothing."""
    import soundfile

    if not source.is_file():
        kind = "is a folder" if source.is_dir() else "no such file"
        raise InputError(f"{source}: {kind}; expected an audio file")
    if source.stat().st_size == 0:
        raise InputError(f"{source}: the file is empty; expected audio")
    blocks: list[NDArray[np.float32]] = []
    try:
        _refuse_cut(source)
        with soundfile.SoundFile(file_name(source)) as file:
            size = max(1, BLOCK // file.channels)
            while (block := file.read(size, dtype="float32", always_2d=True)).size:
                blocks.append(block.mean(axis=1) if file.channels > 1 else block[:, 0])
            rate = int(file.samplerate)
    except InputError:
        raise
    except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:
        reason = getattr(error, "error_string", None) or str(error)
        raise InputError(
            f"{source}: cannot be read as audio ({_line(reason)}); expected wav, flac, ogg or mp3"
        ) from None
    return (np.concatenate(blocks) if blocks else np.zeros(0, np.float32)), rate


def file_name(path: Path) -> str | bytes:
    """A path as libsndfile takes it, also where its name is no text."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _refuse_cut(source: Path) -> None:
    """Raises if a .wav ends before the samples that its header promises, which nobody else tells.

    Raises:
        InputError: It does.
    """
    with source.open("rb") as file:
        if file.read(4) != b"RIFF" or file.read(8)[4:] != b"WAVE":
            return
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                there = source.stat().st_size - file.tell()
                if there + SLACK < size < UNKNOWN:
                    raise InputError(
                        f"{source}: is cut short: its header promises {size} bytes of samples, "
                        f"{there} are there; copy or export it again"
                    )
                return
            file.seek(size + size % 2, os.SEEK_CUR)


def _line(text: str) -> str:
    return " ".join(text.split())[:120].rstrip(".")
