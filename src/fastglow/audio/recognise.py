"""How well each mel scale explains an array: the statistics behind the mel doctor.

Three figures tell the scales apart. Speech of any voice and gain has nearly the same *spread*
(between the 2nd and 98th percentile) and *texture* (typical step from cell to cell) in ln units,
so each tells the factor that was applied; the *middle* (of the two percentiles) tells the offset,
up to the recording's gain. A scale is undone and the result compared with what 120 recordings of
six corpora have, whole, in pieces of 10 to 100 frames and 20 dB louder or softer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fastglow.audio.frames import Float64
from fastglow.audio.mel import FLOOR, mel_spectrogram
from fastglow.audio.scales import LN_FLOOR, SCALES, Scale, log_area
from fastglow.config import WaveGlowConfig

SPEECH_MIDDLE = -4.7  # ln
SPEECH_SPREAD = 2.05  # log of ln: 7.8 from percentile to percentile
SPEECH_TEXTURE = -1.06  # log of ln: steps of 0.35
OVERSHOOT = 0.03  # of a bounded scale's range, by which acoustic models leave it
IMPOSSIBLE = -1e3
LN_FLOORS = (LN_FLOOR, 2 * LN_FLOOR)  # 1e-5 and 1e-10, which everybody clamps at
ATOM = 0.005  # share of cells exactly at the least value that shows a clamp


@dataclass(frozen=True, slots=True)
class Figures:
    """What is measured on a mel, or on the logarithm of its values.

    Attributes:
        low: 2nd percentile of the cells above the least value.
        high: 98th percentile of the same.
        texture: Log of the typical step to the next frame and the next band, over pairs of such
            cells; None if there are too few.
        floor: The least value, if a share of at least ``ATOM`` of the cells has it, else None.
        frames: How many were measured.
    """

    low: float
    high: float
    texture: float | None
    floor: float | None
    frames: int


def measure(values: Float64) -> Figures:
    """The figures of [n_mel, frames]."""
    least = values.min()
    above = values > least
    spread = values[above] if above.any() else values  # logarithms may be all at the clamp
    low, high = (float(q) for q in np.percentile(spread, (2, 98)))
    across = np.abs(np.diff(values, axis=1))[above[:, 1:] & above[:, :-1]]
    along = np.abs(np.diff(values, axis=0))[above[1:] & above[:-1]]
    texture = None
    if min(across.size, along.size) >= 40:
        steps = float(np.median(across) * np.median(along))
        texture = 0.5 * float(np.log(steps)) if steps > 0 else None
    floor = float(least) if 1 - above.mean() >= ATOM else None
    return Figures(low, high, texture, floor, values.shape[1])


@dataclass(frozen=True, slots=True)
class Measured:
    """A mel's figures as it is, and of the logarithm of its values if none is negative."""

    least: float
    most: float
    plain: Figures
    logs: Figures | None

    @classmethod
    def of(cls, values: Float64) -> Measured:
        """Of [n_mel, frames] finite, not constant."""
        least, most = float(values.min()), float(values.max())
        logs = measure(np.log(np.maximum(values, FLOOR**2))) if least >= 0 else None
        return cls(least, most, measure(values), logs)

    def under(self, scale: Scale) -> Figures | None:
        """The figures that tell about a scale."""
        return self.logs if scale.logarithm else self.plain


def chances(measured: Measured, config: WaveGlowConfig) -> dict[str, float]:
    """Log-likelihood of each scale, up to a common constant.

    Args:
        measured: Of the mel.
        config: What the mel is meant for.
    """
    least, most = measured.least, measured.most
    out = {}
    for name, scale in SCALES.items():
        slack = OVERSHOOT * (scale.high - scale.low) if np.isfinite(scale.high) else 0.0
        figures = measured.under(scale)
        if figures is None or least < scale.low - slack or most > scale.high + slack:
            out[name] = IMPOSSIBLE
        else:
            out[name] = _score(figures, scale, config)
    return out


def _score(figures: Figures, scale: Scale, config: WaveGlowConfig) -> float:
    """Log-likelihood of the figures, with this scale undone, for speech."""
    offset = scale.offset
    if scale.power:
        offset += 0.5 * float(np.median(log_area(config)))
    factor = float(np.log(scale.slope))
    short = 1 / figures.frames
    middle = scale.slope * (figures.low + figures.high) / 2 + offset
    spread = float(np.log(max(figures.high - figures.low, 1e-12))) + factor
    expected = SPEECH_SPREAD - 0.45 * short**0.5
    score = _tails(middle, SPEECH_MIDDLE, (1.3 + 3 * short), (1.0 + 3 * short))
    score += _tails(spread, expected, (0.015 + 0.8 * short) ** 0.5, 0.13)
    if figures.texture is not None:
        texture = figures.texture + factor - texture_shift(config)
        # below: predicted mels are smoother; a slight blur takes off 0.55
        score += _tails(texture, SPEECH_TEXTURE, 0.35, (0.01 + 0.25 * short) ** 0.5)
    if figures.floor is not None and not scale.logarithm:
        score += _floor_score(figures.floor, scale)
    return score


def _tails(value: float, centre: float, below: float, above: float) -> float:
    """Log-density of a normal law with a deviation on either side of its centre."""
    return -0.5 * ((value - centre) / (below if value < centre else above)) ** 2


def _floor_score(floor: float, scale: Scale) -> float:
    """Many cells at one least value were clamped: at this scale's own floor?"""
    if np.isfinite(scale.low):
        return 3.0 if abs(floor - scale.low) <= 0.01 * (scale.high - scale.low) else 0.0
    undone = scale.slope * floor + scale.offset
    return 3.0 if min(abs(undone - own) for own in LN_FLOORS) <= 0.01 else 0.0


@lru_cache(maxsize=8)
def texture_shift(config: WaveGlowConfig) -> float:
    """How much coarser than the published model's a mel of noise is, in logarithm."""
    published = WaveGlowConfig()
    ours = (config.mel, config.n_mel_channels, config.hop_length, config.sampling_rate)
    if ours == (published.mel, 80, published.hop_length, published.sampling_rate):
        return 0.0
    textures = []
    for one in (config, published):
        noise = np.random.default_rng(0).standard_normal(200 * one.hop_length)
        mel = mel_spectrogram(noise / 10, one.sampling_rate, config=one)
        textures.append(measure(mel.astype(np.float64)).texture or SPEECH_TEXTURE)
    return textures[0] - textures[1]
