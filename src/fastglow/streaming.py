"""Audio while the mel is still coming in, the same samples as from the whole mel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.arguments import as_float32
from fastglow.config import WaveGlowConfig
from fastglow.engines.base import Engine
from fastglow.errors import InputError
from fastglow.noise import SeededNoise
from fastglow.plan.upsample import FRAMES

Float32 = NDArray[np.float32]


def stream(
    engine: Engine,
    config: WaveGlowConfig,
    chunks: Iterable[Float32],
    *,
    sigma: float,
    seed: int,
    frames: int,
) -> Iterator[Float32]:
    """Audio of each stretch of ``frames`` or more frames, once all that it depends on is there.

    Each stretch is computed with its whole receptive field around it, so the samples are those
    of the whole utterance bit for bit; the price is a receptive field of extra work a stretch.

    Raises:
        InputError: The model's hop is no whole number of steps.
    """
    if not config.has_phases:
        raise InputError("cannot stream: the hop is no whole number of steps")
    before, after = config.receptive_field
    size = config.samples(1)
    held = np.zeros((config.n_mel_channels, 0), dtype=np.float32)
    first = done = 0  # the first frame held; frames whose audio was given

    def audio(last: int) -> Float32:
        noise = SeededNoise((seed,), sigma, start=first * size)
        window = engine.infer(held[None], noise, [held.shape[1]])[0]
        return np.asarray(window[(done - first) * size : (last - first) * size])

    for chunk in chunks:
        held = np.concatenate([held, chunk], axis=1)
        ready = first + held.shape[1] - after
        if ready - done >= frames:
            yield audio(ready)
            done = ready
            # Whole blocks of the upsampling are dropped: its rounding depends on their place.
            kept = max(first, (done - before) // FRAMES * FRAMES)
            held, first = held[:, kept - first :], kept
    if first + held.shape[1] > done:
        yield audio(first + held.shape[1])


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
