"""Mels that stay in their file: read part by part, so that their length costs no memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastglow.audio.mel import Float32
from fastglow.audio.mels import (
    NpyHeader,
    check_finite,
    check_shape,
    find_mel,
    read_mel,
    read_npy_header,
)
from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError

WIDTH = 1 << 14  # frames that are checked at a time: 5 MB of a published model's

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class StoredMel:
    """A mel in a .npy file, from :func:`open_mel`.

    It is read, not mapped: the system ends a process whose mapped file has become shorter
    (SIGBUS), where a read that comes back short is an error like any other.

    Attributes:
        path: The file.
        shape: [n_mel, frames].
        header: How the array lies in the file.
        stamp: What the file was when it was opened.
    """

    path: Path
    shape: tuple[int, int]
    header: NpyHeader
    stamp: Stamp

    def read(self, first: int, last: int) -> Float32:
        """The frames from ``first`` to before ``last``, or to the end of the mel.

        Returns:
            float32 [n_mel, frames], as stored, contiguous.

        Raises:
            InputError: The file cannot be read, or is not what it was when it was opened.
        """
        bands, frames = self.shape
        header, count = self.header, min(last, frames) - first
        if header.order == "F":  # frame after frame: the part is one run of the file
            raw, starts = np.empty((1, count * bands), header.dtype), [first * bands]
        else:  # band after band: a run in each
            raw = np.empty((bands, count), header.dtype)
            starts = [band * frames + first for band in range(bands)]
        try:
            with self.path.open("rb", buffering=0) as file:
                read = 0
                for row, start in zip(raw, starts, strict=True):
                    file.seek(header.offset + start * header.dtype.itemsize)
                    read += file.readinto(row.view(np.uint8))
                stamp = stamp_of(file.fileno())
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror or error})") from None
        if read != raw.nbytes or stamp != self.stamp:
            raise InputError(f"{self.path}: the file was changed while it was read; run again")
        part = raw.reshape(count, bands).T if header.order == "F" else raw
        with np.errstate(over="ignore"):  # a float64 past float32 becomes inf, which is reported
            return np.ascontiguousarray(part, dtype=np.float32)

    def parts(self, width: int) -> Iterator[Float32]:
        """All of it, ``width`` frames at a time.

        Raises:
            InputError: As for :meth:`read`.
        """
        for first in range(0, self.shape[1], width):
            yield self.read(first, first + width)


def open_mel(
    path: str | os.PathLike[str], config: WaveGlowConfig, above: int
) -> Float32 | StoredMel:
    """A mel that a model can read; a long one stays in its file.

    Args:
        path: As for :func:`read_mel`.
        config: The model's.
        above: A .npy of more frames than this stays in its file, any other mel is read.

    Returns:
        What :func:`read_mel` returns, or a mel on disk, all of whose values were looked at.

    Raises:
        InputError: As for :func:`read_mel`, with the same messages.
        CheckpointError: A .pt or .safetensors file is damaged or unsafe.
    """
    source = find_mel(path)
    if source.suffix.lower() != ".npy":
        return read_mel(source, config)
    try:
        with source.open("rb") as file:
            stamp = stamp_of(file.fileno())
            header = read_npy_header(file, stamp[1], str(source))
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror or error})") from None
    mel = StoredMel(source, check_shape(header.shape, config, str(source)), header, stamp)
    if mel.shape[1] <= above:
        return read_mel(source, config)
    check_finite(mel.parts(WIDTH), str(source))
    return mel


def stamp_of(file: int) -> Stamp:
    """What changes when an open file is written to, or its name given to another."""
    found = os.fstat(file)
    return found.st_ino, found.st_size, found.st_mtime_ns
