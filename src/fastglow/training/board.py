"""What a run shows in TensorBoard (the package ``tensorboard``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from fastglow.training.validation import Clip

LOWEST, HIGHEST = -11.5, 2.0  # log mel magnitudes that are black and white


class Board:
    """Scalars, audio and spectrograms in a folder.

    Args:
        folder: Where to write.
        done: Steps done; what an interrupted run wrote after them is hidden.
        rate: Hz.
    """

    def __init__(self, folder: Path, done: int, rate: int) -> None:
        self.rate = rate
        self.writer = SummaryWriter(folder, purge_step=done + 1)

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Points of curves."""
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)

    def clip(self, clip: Clip, step: int) -> None:
        """Audio and spectrograms: what was generated, above what was recorded."""
        for name, audio in (("generated", clip.audio), ("recorded", clip.recorded)):
            sound = np.clip(audio, -1, 1)[None]
            self.writer.add_audio(f"clip/{name}", sound, step, sample_rate=self.rate)
        picture = np.concatenate([_picture(clip.mel), _picture(clip.recorded_mel)])
        self.writer.add_image("clip/mels", picture, step, dataformats="HW")
        self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()


def _picture(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Grey levels within [0, 1], low bands below."""
    return np.asarray(np.clip((mel[::-1] - LOWEST) / (HIGHEST - LOWEST), 0, 1), np.float32)
