"""The scales in which mels are met, and the way from each to WaveGlow's natural logarithm.

M is the mel of the magnitude spectrum, as in ``mel.py``; P that of the power spectrum, which
librosa makes unless told otherwise. sum(w) is the sum of a band's filter over the FFT's bins.

| scale       | a value x is                                | so ln M is                       |
| ----------- | ------------------------------------------- | -------------------------------- |
| `ln`        | ln M                                        | x                                |
| `log10`     | log10 M                                     | ln(10) x                         |
| `db`        | 20 log10 M                                  | ln(10) x / 20                    |
| `magnitude` | M                                           | ln x                             |
| `norm01`    | (20 log10 M + 80) / 100, clipped to [0, 1]  | ln(10) (100 x - 80) / 20         |
| `norm-sym1` | 2 (20 log10 M + 80) / 100 - 1, to [-1, 1]   | ln(10) (50 (x + 1) - 80) / 20    |
| `norm-sym4` | 8 (20 log10 M + 80) / 100 - 4, to [-4, 4]   | ln(10) (12.5 (x + 4) - 80) / 20  |
| `ln-power`  | ln P                                        | about (x + ln sum(w)) / 2        |
| `db-power`  | 10 log10 P                                  | about ln(10) x / 20 + ln sum(w) / 2 |
| `power`     | P                                           | about (ln x + ln sum(w)) / 2     |

The power scales are approximate because the filters were applied after squaring: M is at most
sqrt(sum(w) P), by Cauchy and Schwarz, and 0.09 below it in ln (median over speech; 0.32 at the
95th percentile). Whatever the scale, ln M is floored at ln(1e-5).

Source: tacotron2's audio_processing.py; librosa's power_to_db; keithito/tacotron's audio.py
(ref_level_db 20, min_level_db -100) and Rayhane-mamah/Tacotron-2's (symmetric_mels).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.audio.bands import filter_bank
from fastglow.audio.frames import Float64
from fastglow.audio.mel import FLOOR, Float32
from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError

LN_FLOOR = float(np.log(FLOOR))
_DB = float(np.log(10)) / 20  # ln units in a decibel of magnitude


@dataclass(frozen=True, slots=True)
class Scale:
    """How a value x becomes ln M: ``slope * y + offset``, y being ln x or x itself.

    Attributes:
        slope: Of the line.
        offset: Of the line.
        logarithm: Whether y = ln x.
        power: Whether the filters were applied to the power spectrum: ln sum(w) / 2 is added.
        low: The least value that x can have, where the scale has one.
        high: The largest value that x can have, where the scale has one.
        formula: For people.
    """

    slope: float
    offset: float
    formula: str
    logarithm: bool = False
    power: bool = False
    low: float = -np.inf
    high: float = np.inf


def _normalised(low: float, high: float, formula: str) -> Scale:
    """-100 dB under a reference of 20 dB at ``low``, the reference at ``high``."""
    step = 100 / (high - low)
    return Scale(_DB * step, _DB * (-80 - step * low), formula, low=low, high=high)


SCALES = {
    "ln": Scale(1.0, 0.0, "ln M"),
    "log10": Scale(20 * _DB, 0.0, "log10 M"),
    "db": Scale(_DB, 0.0, "20 log10 M"),
    "db-power": Scale(_DB, 0.0, "10 log10 of the power mel", power=True),
    "ln-power": Scale(0.5, 0.0, "ln of the power mel", power=True),
    "magnitude": Scale(1.0, 0.0, "M, no logarithm", logarithm=True, low=0.0),
    "power": Scale(0.5, 0.0, "the power mel, no logarithm", logarithm=True, power=True, low=0.0),
    "norm01": _normalised(0.0, 1.0, "decibels normalised to [0, 1]"),
    "norm-sym1": _normalised(-1.0, 1.0, "decibels normalised to [-1, 1]"),
    "norm-sym4": _normalised(-4.0, 4.0, "decibels normalised to [-4, 4]"),
}


def check_mel_scale(name: str) -> Scale:
    """The scale of that name.

    Raises:
        InputError: There is none.
    """
    if name not in SCALES:
        raise InputError(f"mel scale {name!r}; expected one of {', '.join(SCALES)}")
    return SCALES[name]


def convert_mel(mel: Any, scale: str, config: WaveGlowConfig | None = None) -> Float32:
    """A mel of another scale as the natural logarithm that WaveGlow reads.

    Args:
        mel: [..., n_mel, frames] floating point.
        scale: One of ``SCALES``; "ln" returns the mel as it is.
        config: How the mel was made; the published WaveGlow by default. Only the power scales
            depend on it.

    Returns:
        float32 [..., n_mel, frames], at least ln(1e-5) unless the scale is "ln".

    Raises:
        InputError: The scale is unknown or the bands are not the model's.
    """
    rule = check_mel_scale(scale)
    array = np.asarray(mel)
    if scale == "ln":
        return array.astype(np.float32, copy=False)
    values: NDArray[np.float64] = array.astype(np.float64)
    if rule.logarithm:
        values = np.log(np.maximum(values, FLOOR**2))  # the least P, and less than the least M
    values = rule.slope * values + rule.offset
    if rule.power:
        area = log_area(config or WaveGlowConfig())
        if values.ndim < 2 or values.shape[-2] != area.size:
            raise InputError(
                f"the mel has shape {list(values.shape)}; expected [{area.size}, frames]"
            )
        values += 0.5 * area[:, None]
    return np.maximum(values, LN_FLOOR).astype(np.float32)


def log_area(config: WaveGlowConfig) -> Float64:
    """The ln sum(w) of each band [n_mel]: -3.07 at 22.05 kHz with 1024 samples to the FFT."""
    bank = filter_bank(config.mel, config.n_mel_channels, config.sampling_rate)
    out: Float64 = np.log(np.maximum(bank.sum(axis=1), np.finfo(np.float64).tiny))
    return out
