"""Audio files written whole or not at all, at once or part by part."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastglow.atomic import writing_whole
from fastglow.audio.files import file_name
from fastglow.audio.frames import scratch
from fastglow.audio.mel import RATES
from fastglow.errors import EngineError, InputError, OutputError

WIDTHS = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}  # bytes a sample
MAX_WAV = 2**32 - 64  # bytes of samples: RIFF counts in 32 bits
ENDLESS = 2**32 - 1  # what a header says whose sizes nobody knows yet
BLOCK = 1 << 18  # samples at a time
FULL = 1 << 20  # bytes free on a disk that libsndfile may have found full


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


class _Encoder(Protocol):
    def write(self, audio: NDArray[Any]) -> None: ...
    def close(self, samples: int) -> None: ...


class AudioWriter:
    """Takes the audio of a file part by part; from :func:`open_audio`.

    Attributes:
        path: The file.
        samples: Written so far.
        clipped: Of those, set to full scale.
    """

    def __init__(self, path: Path, encoder: _Encoder, subtype: str) -> None:
        self.path, self._encoder, self._subtype = path, encoder, subtype
        self.samples = self.clipped = 0
        self._peak = 0.0

    def write(self, audio: NDArray[np.floating[Any]]) -> None:
        """Append audio [samples].

        Raises:
            EngineError: It holds NaN or infinite samples; no file will be left.
            InputError: The file would be longer than its format allows.
        """
        if not audio.size:
            return
        low, high = float(audio.min()), float(audio.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            count = int(audio.size - np.isfinite(audio).sum())
            raise EngineError(
                f"{self.path}: {count} of {audio.size} samples are NaN or infinite; "
                "nothing was written"
            )
        self.samples += audio.size
        self._peak = max(self._peak, -low, high)
        if self._subtype != "FLOAT" and max(-low, high) > 1:
            self.clipped += int(np.count_nonzero(np.abs(audio) > 1))
        check_length(self.path, self.samples, self._subtype)
        for start in range(0, audio.size, BLOCK):
            self._encoder.write(audio[start : start + BLOCK])

    @property
    def report(self) -> WriteReport:
        """What was written so far."""
        return WriteReport(self.path, self.samples, self._peak, self.clipped)


@contextmanager
def open_audio(
    path: str | os.PathLike[str], rate: int, *, subtype: str = "PCM_16"
) -> Iterator[AudioWriter]:
    """A mono .wav or .flac to be written part by part, whole or not at all.

    The file appears when the body ends; an error in it leaves what was there before.

    Args:
        path: Ends in .wav or .flac; its folder must exist. An old file is replaced.
        rate: Hz.
        subtype: "PCM_16", "PCM_24" or, in .wav only, "FLOAT" (32 bits, not clipped).

    Raises:
        InputError: The rate, subtype or path is unusable, or nothing was written.
        OutputError: No file can be written there.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    try:
        check_audio_format(suffix, subtype)
    except InputError as error:
        raise InputError(f"{target}: {error}") from None
    if not RATES[0] <= rate <= (655350 if suffix == ".flac" else RATES[1]):
        raise InputError(f"{target}: a rate of {rate} Hz cannot be written")
    with writing_whole(target) as part, _encoder(part, target, rate, subtype) as encoder:
        writer = AudioWriter(target, encoder, subtype)
        yield writer
        if not writer.samples:
            raise InputError(f"{target}: the audio has no samples; nothing was written")
        encoder.close(writer.samples)


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
    audio = audio.detach().to("cpu").numpy() if hasattr(audio, "detach") else np.asarray(audio)
    if audio.ndim != 1 or audio.dtype.kind != "f":
        raise InputError(
            f"{path}: the audio is {audio.dtype} {list(audio.shape)}; "
            "expected floating point [samples]"
        )
    with open_audio(path, rate, subtype=subtype) as writer:
        writer.write(audio)
    return writer.report


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


def check_length(path: Path, samples: int, subtype: str) -> None:
    """Raises unless a file of this kind can hold so many samples.

    Raises:
        InputError: It cannot.
    """
    if path.suffix.lower() == ".wav" and samples * WIDTHS[subtype] > MAX_WAV:
        raise InputError(f"{path}: {samples} samples do not fit a .wav; write .flac")


def wav_header(samples: int | None, rate: int, subtype: str) -> bytes:
    """What stands before the samples of a .wav; None: their number is not known yet."""
    width = WIDTHS[subtype]
    if subtype == "FLOAT":
        body = struct.pack("<HHIIHHH", 3, 1, rate, rate * width, width, 8 * width, 0)
    else:
        body = struct.pack("<HHIIHH", 1, 1, rate, rate * width, width, 8 * width)
    chunks = struct.pack("<4sI", b"fmt ", len(body)) + body
    if subtype == "FLOAT":
        chunks += struct.pack("<4sII", b"fact", 4, ENDLESS if samples is None else samples)
    size = ENDLESS if samples is None else samples * width
    total = ENDLESS if samples is None else 4 + len(chunks) + 8 + size + size % 2
    return (
        struct.pack("<4sI4s", b"RIFF", total, b"WAVE") + chunks + struct.pack("<4sI", b"data", size)
    )


def wav_samples(audio: NDArray[np.floating[Any]], subtype: str) -> bytes:
    """Samples as they stand in a .wav."""
    if subtype == "FLOAT":
        return audio.astype("<f4").tobytes()
    levels = _levels(audio, 8 * WIDTHS[subtype])
    if subtype == "PCM_16":
        return levels.astype("<i2").tobytes()
    return levels.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()


def _levels(audio: NDArray[np.floating[Any]], bits: int) -> NDArray[np.floating[Any]]:
    """Samples in levels of ``bits`` bits, rounded to nearest even and clipped, in scratch.

    Exact in float32, too: scaling is by a power of two, and levels have at most 24 bits.
    """
    scale = 2.0 ** (bits - 1)
    dtype = np.float64 if audio.dtype.itemsize > 4 else np.float32
    levels = scratch("levels", audio.size, dtype=dtype)
    np.clip(audio, -1, 1, out=levels)
    levels *= scale
    np.rint(levels, out=levels)
    np.minimum(levels, scale - 1, out=levels)
    return levels


@contextmanager
def _encoder(part: Path, target: Path, rate: int, subtype: str) -> Iterator[_Encoder]:
    """What writes to ``part`` a file of ``target``'s kind."""
    if target.suffix.lower() == ".wav":
        with part.open("wb") as file:
            yield _Wav(file, rate, subtype)
        return
    import soundfile

    try:
        with soundfile.SoundFile(file_name(part), "w", rate, 1, subtype, format="FLAC") as flac:
            yield _Flac(flac, subtype)
    except soundfile.SoundFileError as error:
        # libsndfile does not say what the system said.
        full = shutil.disk_usage(part.parent).free < FULL
        kind = OutputError if full else InputError
        reason = "No space left on device" if full else getattr(error, "error_string", str(error))
        raise kind(f"{target}: cannot be written ({reason}); nothing was changed") from None


class _Wav:
    """A RIFF file (libsndfile would write the time of day into float files)."""

    def __init__(self, file: IO[bytes], rate: int, subtype: str) -> None:
        self._file, self._rate, self._subtype = file, rate, subtype
        file.write(wav_header(0, rate, subtype))

    def write(self, audio: NDArray[Any]) -> None:
        self._file.write(wav_samples(audio, self._subtype))

    def close(self, samples: int) -> None:
        self._file.write(b"\0" * (samples * WIDTHS[self._subtype] % 2))
        self._file.seek(0)
        self._file.write(wav_header(samples, self._rate, self._subtype))


class _Flac:
    def __init__(self, file: Any, subtype: str) -> None:
        self._file, self._bits = file, 8 * WIDTHS[subtype]

    def write(self, audio: NDArray[Any]) -> None:
        levels = _levels(audio, self._bits).astype(np.int32)
        self._file.write(levels << (32 - self._bits))  # it takes the top bits

    def close(self, samples: int) -> None:
        self._file.flush()
