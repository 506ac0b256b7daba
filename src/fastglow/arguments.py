"""Checks of what callers hand in; each failure is one clear line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError

Float32 = NDArray[np.float32]


MOST = {"match_mel": 1}  # where more than that makes no sense


class Manner(TypedDict):
    """Settings of synthesis that the audio depends on beside the mel and the noise."""

    sigma: float
    denoise: float
    match_mel: float


def check_settings(**settings: float) -> None:
    """Raise unless sigma and the strengths are numbers that make sense.

    Raises:
        InputError: One is not.
    """
    for name, value in settings.items():
        most = MOST.get(name, 100)
        ok = isinstance(value, int | float | np.floating | np.integer) and 0 <= value <= most
        if not ok:
            raise InputError(f"{name}={value!r}: expected a number, 0 to {most}")


def whole_numbers(values: Any, what: str) -> list[int]:
    """A sequence of whole numbers as a list.

    Raises:
        InputError: It is none.
    """
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{what} must be a sequence of whole numbers, not {values!r:.60}")
    return [int(value) for value in array]


def at_least(name: str, value: object, least: int) -> None:
    """Raise unless the value is a whole number that is not too small.

    Raises:
        InputError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name}={value!r}: expected a whole number of {least} or more")


def choose(name: str, value: object, known: tuple[str, ...]) -> None:
    """Raise unless the value is one of those known.

    Raises:
        InputError: It is not.
    """
    if value not in known:
        raise InputError(f"{name}={value!r}: expected one of {', '.join(known)}")


def as_float32(array: Any, what: str) -> Float32:
    """A numpy or torch array of floating point as float32.

    Raises:
        InputError: It holds something else.
    """
    if hasattr(array, "detach"):
        array = array.detach().to("cpu").float().numpy()
    found = np.asarray(array)
    if found.dtype.kind != "f":
        raise InputError(f"{what} has dtype {found.dtype}; expected floating point")
    with np.errstate(over="ignore"):  # becomes infinite, which is refused by name
        return found.astype(np.float32, copy=False)


def check_mel(
    batch: Float32,
    shape: tuple[int, ...],
    lengths: Sequence[int] | NDArray[np.integer] | None,
    config: WaveGlowConfig,
) -> list[int]:
    """The frames of each row of a batch of mels.

    Args:
        batch: Of mels, [B, n_mel, frames] if all is well.
        shape: As the caller gave it.
        lengths: [B] frames that count; None: all.
        config: The model.

    Raises:
        InputError: The batch or the lengths are unusable.
    """
    bands = config.n_mel_channels
    if batch.ndim != 3 or batch.shape[1] != bands or 0 in batch.shape:
        turned = shape[-1:] == (bands,) and bands not in shape[:-1]
        raise InputError(
            f"the mel has shape {list(shape)}; expected [{bands}, frames] or "
            f"[batch, {bands}, frames]{'; it looks transposed' if turned else ''}"
        )
    frames = [batch.shape[2]] * len(batch)
    if lengths is not None:
        frames = whole_numbers(lengths, "lengths")
        if len(frames) != len(batch) or not all(1 <= n <= batch.shape[2] for n in frames):
            raise InputError(
                f"lengths {frames[:8]} do not fit a batch of {len(batch)} rows of "
                f"{batch.shape[2]} frames; expected one number a row, 1 to {batch.shape[2]}"
            )
    if not config.samples(min(frames)):
        raise InputError("the mel is too short to give one step of audio")
    if not all(np.isfinite(row[:, :n]).all() for row, n in zip(batch, frames, strict=True)):
        raise InputError("the mel holds NaN or infinite values")
    return frames
