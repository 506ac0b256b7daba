"""``fastglow vocode --stream``: mel frames from a pipe, audio out while they come."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fastglow.arguments import Manner
from fastglow.atomic import make_folder, write_whole
from fastglow.audio import convert_mel, open_audio
from fastglow.audio.writing import wav_header, wav_samples
from fastglow.errors import InputError
from fastglow.vocoder import Float32, Vocoder

PIPE = "-"  # standard input
WAV, RAW = ".wav", ".raw"  # with a header that states no length; the samples alone
NPY = b"\x93NUMPY"  # how a .npy file begins
READ = 1 << 16  # bytes asked for at a time; less comes where less is there


@dataclass(frozen=True, slots=True)
class Live:
    """How a stream is vocoded: as the options of the command.

    Attributes:
        frames: Waited for before they are computed.
        lookahead: Waited for past a frame; None: all that it depends on.
    """

    vocoder: Vocoder
    manner: Manner
    seed: int
    mel_scale: str
    subtype: str
    frames: int
    lookahead: int | None

    def run(self, source: str, target: Path | None, suffix: str) -> None:
        """Vocode float32 frames, little-endian, one after the other, until they end.

        Args:
            source: A path, for example of a named pipe, or "-" for standard input.
            target: A .wav, .flac or .raw to write whole or not at all; None: standard output.
            suffix: Of what goes to standard output: ".wav", or ".raw" for the samples alone.

        Raises:
            InputError: The mel cannot be read, ends within a frame, or is not finite; or the audio
                cannot be written.
            EngineError: The audio is not finite.
        """
        if target is not None and target.exists():
            if not target.is_file():
                raise InputError(f"{target}: is no file; redirect standard output to it")
            if source != PIPE and Path(source).exists() and target.samefile(source):
                raise InputError(f"{target}: the output would overwrite the input")
        with _opened(source) as reader:
            audios = self._audio(reader, "standard input" if source == PIPE else source)
            if target is not None:
                self._write(audios, target)
                return
            if sys.stdout.isatty():
                raise InputError("audio would go to the terminal; redirect it or give --out FILE")
            try:
                self._pipe(audios, sys.stdout.buffer, suffix)
            except BrokenPipeError:  # whoever listened has gone; nothing is to be flushed at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _write(self, audios: Iterator[Float32], target: Path) -> None:
        make_folder(target.parent)
        if target.suffix.lower() == RAW:
            first = next(audios, None)
            if first is None:
                raise InputError(f"{target}: the audio has no samples; nothing was written")
            write_whole(target, (wav_samples(a, self.subtype) for a in chain([first], audios)))
            return
        rate = self.vocoder.sampling_rate
        with open_audio(target, rate, subtype=self.subtype) as writer:
            for audio in audios:
                writer.write(audio)

    def _pipe(self, audios: Iterator[Float32], sink: BinaryIO, suffix: str) -> None:
        if suffix != RAW:
            sink.write(wav_header(None, self.vocoder.sampling_rate, self.subtype))
        for audio in audios:
            sink.write(wav_samples(audio, self.subtype))
            sink.flush()

    def _audio(self, reader: BufferedReader, name: str) -> Iterator[Float32]:
        return self.vocoder.stream(
            self._mels(reader, name),
            seed=self.seed,
            frames=self.frames,
            lookahead=self.lookahead,
            **self.manner,
        )

    def _mels(self, reader: BufferedReader, name: str) -> Iterator[Float32]:
        """What has come, in whole frames: [n_mel, frames]."""
        config = self.vocoder.config
        size, whole, held = 4 * config.n_mel_channels, 0, b""
        while data := reader.read1(READ):
            held += data
            if not whole and held.startswith(NPY):
                raise InputError(
                    f"{name}: is a .npy file; --stream takes the bare float32 frames. Give the "
                    "file as an input, without --stream"
                )
            count = len(held) // size
            if count:
                frames = np.frombuffer(held[: count * size], "<f4").reshape(count, -1)
                if not np.isfinite(frames).all():
                    bad = whole + int(np.isfinite(frames).all(axis=1).argmin())
                    raise InputError(f"{name}: frame {bad} holds NaN or infinite values")
                yield convert_mel(frames.T, self.mel_scale, config)
                held, whole = held[count * size :], whole + count
        if held:
            raise InputError(
                f"{name}: the mel ends {len(held)} bytes into frame {whole}; expected float32 "
                f"frames of {config.n_mel_channels} numbers, {size} bytes each"
            )


@contextmanager
def _opened(source: str) -> Iterator[BufferedReader]:
    if source == PIPE:
        yield sys.stdin.buffer  # type: ignore[misc]  # a BufferedReader
        return
    if not Path(source).exists() or Path(source).is_dir():
        raise InputError(f"{source}: no such file or pipe; expected float32 mel frames, or -")
    with Path(source).open("rb") as file:
        yield file
