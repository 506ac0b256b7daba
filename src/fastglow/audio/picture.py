"""Spectrograms as a picture; needs matplotlib (the extra ``plot``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

WINDOW = 1024
FLOOR = 80.0  # dB under the loudest bin that is still drawn


def compare_spectrograms(signals: Mapping[str, NDArray[np.float32]], rate: int, path: Path) -> None:
    """Draw the spectrogram of each signal under the last, on one scale.

    Args:
        signals: Audio [samples] by title.
        rate: Hz, the same for all.
        path: A .png file.
    """
    figure, rows = plt.subplots(len(signals), 1, sharex=True, squeeze=False, figsize=(11, 6))
    drawn = {name: _spectrogram(audio) for name, audio in signals.items()}
    top = max(float(image.max()) for image in drawn.values())
    for axis, (name, image) in zip(rows[:, 0], drawn.items(), strict=True):
        seconds = len(signals[name]) / rate
        axis.imshow(
            image,
            origin="lower",
            aspect="auto",
            extent=(0, seconds, 0, rate / 2000),
            vmin=top - FLOOR,
            vmax=top,
            cmap="magma",
        )
        axis.set_title(name, loc="left")
        axis.set_ylabel("kHz")
    rows[-1, 0].set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _spectrogram(audio: NDArray[np.float32]) -> NDArray[np.float64]:
    """Level in dB [bins, frames], a quarter window apart."""
    padded = np.pad(audio, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[:: WINDOW // 4]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), axis=1)).T
    return np.asarray(20 * np.log10(np.maximum(spectrum, 1e-6)))
