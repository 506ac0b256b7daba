"""Audio files: read at any rate and in any common format, written whole or not at all."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.atomic import write_whole
from fastglow.audio.mel import RATES, Float32, resample
from fastglow.errors import EngineError, InputError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")  # taken for audio where a folder is named
WIDTHS = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}  # bytes a sample
MAX_WAV = 2**32 - 64  # bytes of samples: RIFF counts in 32 bits
BLOCK = 1 << 20  # samples at a time


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What was written.

    Attributes:
        path: The file.
        samples: How many.
        peak: Largest magnitude before any clipping; 1 is full scale.
        clipped: Samples over full scale that were set to full scale (none in FLOAT).
    """

    path: Path
    samples: int
    peak: float
    clipped: int


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
        with soundfile.SoundFile(source) as file:
            size = max(1, BLOCK // file.channels)
            while (block := file.read(size, dtype="float32", always_2d=True)).size:
                blocks.append(block.mean(axis=1) if file.channels > 1 else block[:, 0])
            rate = int(file.samplerate)
    except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:
        reason = getattr(error, "error_string", None) or str(error)
        raise InputError(
            f"{source}: cannot be read as audio ({_line(reason)}); expected wav, flac, ogg or mp3"
        ) from None
    return (np.concatenate(blocks) if blocks else np.zeros(0, np.float32)), rate


def _line(text: str) -> str:
    return " ".join(text.split())[:120].rstrip(".")


def write_audio(
    path: str | os.PathLike[str], audio: Any, rate: int, *, subtype: str = "PCM_16"
) -> WriteReport:
    """Writes mono audio as .wav or .flac, whole or not at all.

    Samples over full scale are clipped, never wrapped round, and counted. The same samples give
    the same bytes. PCM samples are rounded to the nearest level, so that a PCM file that is read
    and written again comes out the same.

    Args:
        path: Ends in .wav or .flac; its folder must exist. An old file is replaced.
        audio: [samples] floating point, nominally within [-1, 1].
        rate: Hz.
        subtype: "PCM_16", "PCM_24" or, in .wav only, "FLOAT" (32 bits, not clipped).

    Raises:
        InputError: The audio, rate, subtype or path is unusable.
        EngineError: The audio holds NaN or infinite samples; nothing is written.
    """
    target = Path(path)
    audio = audio.detach().to("cpu").numpy() if hasattr(audio, "detach") else np.asarray(audio)
    _check_writable(target, audio, rate, subtype)
    low, high = float(audio.min()), float(audio.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        count = int(audio.size - np.isfinite(audio).sum())
        raise EngineError(
            f"{target}: {count} of {audio.size} samples are NaN or infinite; nothing was written"
        )
    if target.suffix.lower() == ".wav":
        write_whole(target, _wav(audio, rate, subtype))
    else:
        write_whole(target, [_flac(audio, rate, subtype)])
    clipped = 0 if subtype == "FLOAT" else int((audio > 1).sum() + (audio < -1).sum())
    return WriteReport(target, audio.size, max(-low, high), clipped)


def check_audio_format(suffix: str, subtype: str) -> None:
    """Raises unless :func:`write_audio` can write files of this kind.

    Args:
        suffix: ".wav" or ".flac".
        subtype: "PCM_16", "PCM_24" or, for .wav, "FLOAT".

    Raises:
        InputError: It cannot.
    """
    if suffix not in (".wav", ".flac"):
        raise InputError(f"cannot write {suffix or 'no suffix'}; expected .wav or .flac")
    if subtype not in WIDTHS or (suffix == ".flac" and subtype == "FLOAT"):
        known = "PCM_16 or PCM_24" if suffix == ".flac" else "PCM_16, PCM_24 or FLOAT"
        raise InputError(f"subtype {subtype!r}; expected {known}")


def _check_writable(target: Path, audio: NDArray[Any], rate: int, subtype: str) -> None:
    suffix = target.suffix.lower()
    try:
        check_audio_format(suffix, subtype)
    except InputError as error:
        raise InputError(f"{target}: {error}") from None
    if not RATES[0] <= rate <= (655350 if suffix == ".flac" else RATES[1]):
        raise InputError(f"{target}: a rate of {rate} Hz cannot be written")
    if audio.ndim != 1 or audio.dtype.kind != "f":
        raise InputError(
            f"{target}: the audio is {audio.dtype} {list(audio.shape)}; "
            "expected floating point [samples]"
        )
    if not audio.size:
        raise InputError(f"{target}: the audio has no samples; nothing was written")
    if suffix == ".wav" and audio.size * WIDTHS[subtype] > MAX_WAV:
        raise InputError(f"{target}: {audio.size} samples do not fit a .wav; write .flac")


def _levels(audio: NDArray[Any], bits: int) -> NDArray[np.int32]:
    """Samples as integers of ``bits`` bits, rounded to nearest even and clipped."""
    scale = 2.0 ** (bits - 1)
    scaled = np.rint(audio.astype(np.float64) * scale)
    return np.clip(scaled, -scale, scale - 1).astype(np.int32)


def _wav(audio: NDArray[Any], rate: int, subtype: str) -> Iterator[bytes]:
    """A RIFF file, block by block (libsndfile would write the time of day into float files)."""
    width = WIDTHS[subtype]
    size = audio.size * width
    body = struct.pack("<HHIIHH", 1, 1, rate, rate * width, width, 8 * width)
    chunks = struct.pack("<4sI", b"fmt ", len(body)) + body
    if subtype == "FLOAT":
        body = struct.pack("<HHIIHHH", 3, 1, rate, rate * width, width, 8 * width, 0)
        chunks = struct.pack("<4sI", b"fmt ", len(body)) + body
        chunks += struct.pack("<4sII", b"fact", 4, audio.size)
    total = 4 + len(chunks) + 8 + size + size % 2
    yield struct.pack("<4sI4s", b"RIFF", total, b"WAVE") + chunks
    yield struct.pack("<4sI", b"data", size)
    for start in range(0, audio.size, BLOCK):
        block = audio[start : start + BLOCK]
        if subtype == "FLOAT":
            yield block.astype("<f4").tobytes()
        elif subtype == "PCM_16":
            yield _levels(block, 16).astype("<i2").tobytes()
        else:
            yield _levels(block, 24).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    yield b"\0" * (size % 2)


def _flac(audio: NDArray[Any], rate: int, subtype: str) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    bits = 8 * WIDTHS[subtype]
    with soundfile.SoundFile(buffer, "w", rate, 1, subtype, format="FLAC") as file:
        for start in range(0, audio.size, BLOCK):
            levels = _levels(audio[start : start + BLOCK], bits)
            file.write(levels << (32 - bits))  # libsndfile takes the top bits of 32
    return buffer.getvalue()
