"""The report's pictures as PNG; needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fastglow.evaluate.libraries import optional
from fastglow.evaluate.record import Result
from fastglow.evaluate.scores import ORIGINAL, VOICE, Metric
from fastglow.evaluate.table import label

WINDOW, HOP = 1024, 256
RANGE = 80.0  # dB under the original's loudest bin that are drawn
SECONDS = 8.0  # of a long file that are drawn
ACROSS = 4  # panels of strips in a row
COLOURS = {ORIGINAL: "#009E73", VOICE: "#0072B2"}  # Okabe and Ito's, told apart by everybody
OTHER = "#D55E00"
BESIDE = 0.25  # of a column from its points to their mean


def spectrograms(signals: Sequence[tuple[str, NDArray[np.float32]]], rate: int) -> bytes:
    """Spectrograms side by side, on one scale.

    Args:
        signals: Titles and audio [samples]; the first sets the scale.
        rate: Hz, of all.

    Returns:
        A PNG.
    """
    images = [_levels(wave[: int(SECONDS * rate)]) for _, wave in signals]
    top = float(images[0].max())
    figure = Figure(figsize=(5.2 * len(images), 3.4), layout="constrained")
    axes = figure.subplots(1, len(images), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (title, _), image in zip(axes, signals, images, strict=True):
        drawn = axis.imshow(
            image,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            extent=(0, image.shape[1] * HOP / rate, 0, rate / 2000),
            vmin=top - RANGE,
            vmax=top,
            cmap="magma",
        )
        axis.set_title(title, loc="left")
        axis.set_xlabel("seconds")
    axes[0].set_ylabel("kHz")
    figure.colorbar(drawn, ax=axes, label="dB", pad=0.01)
    return _png(figure)


def strips(result: Result) -> bytes:
    """Every file's figure as a point and the mean with its interval, a panel for each metric.

    Args:
        result: A run with at least one file.

    Returns:
        A PNG.
    """
    metrics = result.metrics
    rows = -(-len(metrics) // ACROSS)
    figure = Figure(figsize=(3.6 * ACROSS, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, ACROSS, squeeze=False).ravel()
    for axis in axes[len(metrics) :]:
        axis.set_visible(False)
    for axis, metric in zip(axes, metrics, strict=False):
        _strip(axis, result, metric)
    return _png(figure)


def _strip(axis: Axes, result: Result, metric: Metric) -> None:
    systems = [name for name in result.systems if metric.key in result.summary[name]]
    for place, system in enumerate(systems):
        values = [file.scores[system][metric.key] for file in result.files]
        known = [value for value in values if value is not None]
        spread = np.linspace(-0.3, 0.1, len(known))
        colour = COLOURS.get(system, OTHER)
        axis.plot(place + spread, known, ".", color=colour, alpha=0.5, markersize=5)
        mean = result.summary[system][metric.key]
        if mean.low is not None and mean.high is not None:
            axis.plot([place + BESIDE] * 2, [mean.low, mean.high], color="black", linewidth=2)
        if mean.mean is not None:
            axis.plot(place + BESIDE, mean.mean, "D", color="black", markersize=5)
    axis.set_xticks(range(len(systems)), [label(result, system) for system in systems])
    axis.set_xlim(-0.6, len(systems) - 0.4)
    better = "as original" if metric.better == "as original" else f"{metric.better} is better"
    unit = f", {metric.unit}" if metric.unit else ""
    axis.set_title(f"{metric.name}{unit}\n{better}", loc="left", fontsize="small")
    axis.tick_params(labelsize="small")
    axis.grid(axis="y", alpha=0.3)


def _levels(wave: NDArray[np.float32]) -> NDArray[np.float64]:
    """DB [bins, frames]."""
    padded = np.pad(wave, (0, max(0, WINDOW - wave.size)))
    spectrum = optional("librosa").stft(padded, n_fft=WINDOW, hop_length=HOP)
    return np.asarray(20 * np.log10(np.maximum(np.abs(spectrum), 1e-5)))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
