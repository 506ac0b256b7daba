"""Audio while the mel is still coming in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastglow.arguments import as_float32
from fastglow.engines.base import Stream
from fastglow.errors import InputError

Float32 = NDArray[np.float32]


def stream(state: Stream, chunks: Iterable[Float32], frames: int) -> Iterator[Float32]:
    """Audio as soon as ``frames`` more frames have come, and at last all that is missing."""
    held: list[Float32] = []
    waiting = 0
    for chunk in chunks:
        waiting += chunk.shape[1]
        if waiting < frames:
            held.append(chunk.copy())  # its memory may be the next chunk's
            continue
        # A GPU waits for what happens here, so a chunk that is alone is not copied
        audio = state.push(np.concatenate([*held, chunk], axis=1) if held else chunk)
        held, waiting = [], 0
        if audio.size:
            yield audio
    rest = [state.push(np.concatenate(held, axis=1))] if held else []
    audio = np.concatenate([*rest, state.finish()])
    if audio.size:
        yield audio


class Filter(Protocol):
    """What is done to audio as it comes."""

    def push(self, audio: Float32) -> Float32:
        """Takes in audio [samples]; gives what has become final."""

    def finish(self) -> Float32:
        """The rest."""


class Listener(Protocol):
    """What wants to know the mel, too."""

    def hear(self, mel: Float32) -> None:
        """Takes in mel [n_mel, frames]."""


def filtered(audios: Iterator[Float32], filters: Sequence[Filter]) -> Iterator[Float32]:
    """The audio through the filters, one after the other."""
    for audio in audios:
        for each in filters:
            audio = each.push(audio)
        if audio.size:
            yield audio
    audio = np.empty(0, dtype=np.float32)
    for each in filters:
        audio = np.concatenate([each.push(audio), each.finish()])
    if audio.size:
        yield audio


def heard(chunks: Iterable[Float32], listener: Listener) -> Iterator[Float32]:
    """The chunks, each told to the listener before it is used."""
    for chunk in chunks:
        listener.hear(chunk)
        yield chunk


def checked(chunks: Iterable[Any], bands: int) -> Iterator[Float32]:
    """The chunks as float32 [n_mel, frames].

    Raises:
        InputError: One has another shape or type, or is not finite.
    """
    for index, chunk in enumerate(chunks):
        array = as_float32(chunk, f"chunk {index} of the mel")
        if array.ndim != 2 or array.shape[0] != bands:
            raise InputError(
                f"chunk {index} of the mel has shape {list(array.shape)}; "
                f"expected [{bands}, frames]"
            )
        if not np.isfinite(array).all():
            raise InputError(f"chunk {index} of the mel holds NaN or infinite values")
        yield array
