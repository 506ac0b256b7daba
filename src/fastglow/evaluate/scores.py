"""Every metric of one file: the list of them, and their values for each system."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fastglow.config import WaveGlowConfig
from fastglow.evaluate import levels, metrics
from fastglow.evaluate.levels import Mos
from fastglow.evaluate.metrics import Wave

ORIGINAL, VOICE, BASELINE = "original", "voice", "griffin_lim"
Scores = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is named and shown.

    Attributes:
        key: In JSON.
        heading: Of a narrow column.
        name: In words.
        unit: Empty if it has none.
        better: Which way is good.
        digits: After the point.
        alone: Whether it needs no original, so that the original has it too.
        brief: Whether a narrow terminal shows it.
    """

    key: str
    heading: str
    name: str
    unit: str
    better: Literal["higher", "lower", "as original"]
    digits: int
    alone: bool = False
    brief: bool = False


METRICS = (
    Metric("pesq_wb", "PESQ", "PESQ, wideband", "MOS-LQO", "higher", 2, brief=True),
    Metric("stoi", "STOI", "STOI", "", "higher", 3, brief=True),
    Metric("mos", "MOS", "predicted MOS (distillmos)", "", "higher", 2, alone=True, brief=True),
    Metric("mcd", "MCD", "mel-cepstral distortion", "dB", "lower", 2, brief=True),
    Metric("log_mel_l1", "mel L1", "log-mel L1", "Np", "lower", 3, brief=True),
    Metric("multi_resolution_stft", "STFT", "multi-resolution STFT", "", "lower", 3),
    Metric("f0_rmse", "F0", "F0 RMSE", "cents", "lower", 0),
    Metric("voicing_error", "V/UV", "voicing errors", "%", "lower", 1),
    Metric("whistle_1", "line 1", "whistle, 1st line", "dB", "as original", 1, alone=True),
    Metric("whistle_2", "line 2", "whistle, 2nd line", "dB", "as original", 1, alone=True),
    Metric("whistle_3", "line 3", "whistle, 3rd line", "dB", "as original", 1, alone=True),
    Metric("hop_hum", "hum", "hum of the hop", "dB", "as original", 1, alone=True),
    Metric("noise_floor", "floor", "noise floor", "dB", "as original", 1, alone=True),
    Metric("peak", "peak", "peak", "", "as original", 2, alone=True),
)


class Judge:
    """Scores what is said to be one recording.

    Attributes:
        original: The recording [samples] at the voice's rate.
    """

    def __init__(self, original: Wave, config: WaveGlowConfig, mos: Mos | None = None) -> None:
        """Tracks the original's pitch, once for all systems."""
        self.original, self._config, self._mos = original, config, mos
        self._pitch = metrics.pitch(original, config.sampling_rate)

    def alone(self, wave: Wave) -> dict[str, float | None]:
        """The metrics that need no original.

        Args:
            wave: [samples] at the voice's rate.
        """
        rate = self._config.sampling_rate
        found: dict[str, float | None] = {}
        if self._mos:
            found["mos"] = self._mos(wave, rate)
        for line, level in enumerate(levels.whistles(wave, self._config.n_group), start=1):
            found[f"whistle_{line}"] = level
        found["hop_hum"] = levels.hop_hum(wave, self._config.hop_length)
        found |= {"noise_floor": levels.noise_floor(wave), "peak": levels.peak(wave)}
        return {key: _finite(value) for key, value in found.items()}

    def against(self, wave: Wave) -> dict[str, float | None]:
        """All metrics of a generated signal; the longer of the two is cut at its end.

        Args:
            wave: [samples] at the voice's rate.
        """
        rate, samples = self._config.sampling_rate, min(wave.size, self.original.size)
        true, wave = self.original[:samples], wave[:samples]
        f0_rmse, voicing_error = metrics.f0_errors(self._pitch, metrics.pitch(wave, rate))
        found = self.alone(wave) | {
            "pesq_wb": metrics.pesq_wb(true, wave, rate),
            "stoi": metrics.stoi(true, wave, rate),
            "mcd": metrics.mcd(true, wave, rate),
            "log_mel_l1": metrics.log_mel_l1(true, wave, self._config),
            "multi_resolution_stft": metrics.multi_resolution_stft(true, wave),
            "f0_rmse": f0_rmse,
            "voicing_error": voicing_error,
        }
        return {metric.key: _finite(found[metric.key]) for metric in METRICS if metric.key in found}


def _finite(value: float | None) -> float | None:
    """None in place of what a library could not compute either."""
    return value if value is not None and math.isfinite(value) else None
