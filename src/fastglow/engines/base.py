"""What every engine offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastglow.noise import SeededNoise

Float32 = NDArray[np.float32]
Noise = Float32 | SeededNoise


def padded(count: int, multiple: int) -> int:
    """``count`` rounded up to a multiple."""
    return -(-count // multiple) * multiple


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

    def warm(self) -> None:
        """Make now, and keep on disk, all the machine code that a first call would wait for."""
        ...
