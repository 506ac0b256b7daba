"""What every engine offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastglow.noise import SeededNoise

Float32 = NDArray[np.float32]
Noise = Float32 | SeededNoise

NO_PHASES = "cannot stream: the hop is no whole number of steps"
NOT_FINITE = (
    "the audio holds values that are not finite; the mel may be far outside the model's range "
    "(run `fastglow doctor` on it)"
)


def padded(count: int, multiple: int) -> int:
    """``count`` rounded up to a multiple."""
    return -(-count // multiple) * multiple


def delays_of(flows: int, delay: int, lookahead: int | None) -> tuple[int, ...]:
    """How far each flow of a stream lags behind its input, in the order in which they run.

    Args:
        flows: How many.
        delay: Frames past a frame that each looks at.
        lookahead: Frames of them all, shared out evenly; None, or more than they look at: all.
    """
    whole = flows * delay
    share, rest = divmod(whole if lookahead is None else min(lookahead, whole), flows)
    return tuple(share + (k < rest) for k in range(flows))


class Stream(Protocol):
    """One utterance whose mel comes in parts.

    Attributes:
        lookahead: Frames that must have come past a frame before its audio is given.
    """

    @property
    def lookahead(self) -> int: ...  # noqa: D102

    def push(self, mel: Float32) -> Float32:
        """Audio [samples] that new frames [n_mel, frames] bring within reach; maybe none.

        Raises:
            EngineError: The audio is not finite, or memory ran out.
        """
        ...

    def finish(self) -> Float32:
        """Audio [samples] of all that is still missing; nothing can be pushed after it.

        Raises:
            EngineError: As for :meth:`push`.
        """
        ...


class Engine(Protocol):
    """Runs one plan on one device.

    Attributes:
        device: "cpu", "cuda" or "cuda:1", say.
        precision: For example "fp32".
        conditioning: The plan's form, which rounding depends on.
        description: One line for ``info``.
    """

    @property
    def device(self) -> str: ...  # noqa: D102

    @property
    def precision(self) -> str: ...  # noqa: D102

    @property
    def conditioning(self) -> str: ...  # noqa: D102

    @property
    def description(self) -> str: ...  # noqa: D102

    def infer(self, mel: Float32, noise: Noise, lengths: Sequence[int]) -> Float32:
        """Audio of a padded batch.

        Args:
            mel: [B, n_mel, frames] float32, natural log.
            noise: [B, samples] float32, already scaled by sigma, or seeds to draw it from.
            lengths: Frames of each row that count.

        Returns:
            [B, samples] float32; a row is zero past its length.

        Raises:
            EngineError: The result is not finite, or memory ran out.
        """
        ...

    def stream(self, noise: SeededNoise, lookahead: int | None = None) -> Stream:
        """Begin an utterance whose mel comes in parts.

        Args:
            noise: Of one row.
            lookahead: Frames to wait for past a frame; what lies beyond them counts as if the
                utterance ended there. None: as many as it takes to make the samples of the whole.

        Raises:
            InputError: The model's hop is no whole number of steps.
        """
        ...

    def warm(self) -> None:
        """Make now, and keep on disk, all the machine code that a first call would wait for."""
        ...
