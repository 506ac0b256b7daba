"""The mel doctor: which convention does a mel follow, and what mends it?

What can be counted (shape, frames against seconds, NaN) is counted; the scale is estimated, by
``recognise.py``. ln wins unless it is out of the question: none of 7,440 proper mels tried (six
corpora, 20 dB louder and softer, 10 frames and more) was taken for anything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.audio.recognise import Measured, chances
from fastglow.audio.scales import LN_FLOOR, SCALES
from fastglow.config import WaveGlowConfig

MAX_FRAMES = 4096  # looked at: 47 s
DOUBT = 0.05  # a mel passes as ln as long as ln is at least this probable
UNLIKELY = -16.0  # log-likelihood under which no scale is believed: four deviations twice
LN_UNLIKELY = -35.0  # the same for ln: proper mels, even blurred, have -19 at the worst; noise -65
ALIKE = {"db": "db-power", "db-power": "db"}  # told apart by 13 dB of level only


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a mel is.

    Attributes:
        verdict: A name in ``scales.SCALES``, or "silent", "transposed", "bands", "shape",
            "empty", "not-finite", "constant", "hop", "standardised" or "unknown".
        ok: Whether the model can read the mel as it is.
        confidence: 0 to 1: probability of the verdict among the known scales; 1 for what is
            counted rather than estimated.
        summary: The verdict in one line.
        evidence: The figures that led to it, one a line.
        mend: What to do, or "".
        scale: For ``convert_mel`` and ``vocode --mel-scale``, where a conversion mends.
    """

    verdict: str
    ok: bool
    confidence: float
    summary: str
    evidence: tuple[str, ...] = ()
    mend: str = ""
    scale: str | None = None


def diagnose(
    mel: Any, config: WaveGlowConfig | None = None, *, seconds: float | None = None
) -> Diagnosis:
    """Says which convention a mel follows and how to mend it.

    Args:
        mel: An array of any shape; [n_mel, frames] or [1, n_mel, frames] is expected.
        config: The model that is to read it; the published WaveGlow by default.
        seconds: Length of the recording, if known: tells the hop.
    """
    config = config or WaveGlowConfig()
    array = np.asarray(mel)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    broken = _broken(array, config)
    if broken:
        return broken
    bands = config.n_mel_channels
    if array.shape[0] != bands:
        inner = _scale_of(array.T, config)
        extra = f", then --mel-scale {inner.scale}" if inner.scale and not inner.ok else ""
        return Diagnosis(
            "transposed",
            False,
            1.0,
            f"transposed: {list(array.shape)} where [{bands}, frames] is expected",
            (f"as [{bands}, frames]: {inner.summary}", *inner.evidence),
            f"save mel.T{extra}",
            inner.scale,
        )
    wrong_hop = _wrong_hop(array.shape[1], config, seconds)
    return wrong_hop or _scale_of(array, config)


def _broken(array: NDArray[Any], config: WaveGlowConfig) -> Diagnosis | None:
    """What no conversion mends."""
    bands, shape = config.n_mel_channels, list(array.shape)

    def verdict(name: str, summary: str, mend: str) -> Diagnosis:
        return Diagnosis(name, False, 1.0, summary, (f"shape {shape}, {array.dtype}",), mend)

    expected = f"expected [{bands}, frames]"
    if array.ndim != 2 or array.dtype.kind != "f":
        return verdict(
            "shape", f"no mel: {array.dtype} of shape {shape}; {expected}", "save one mel a file"
        )
    if 0 in array.shape:
        return verdict("empty", f"empty: shape {shape}", "make the mel again")
    if bands not in array.shape:
        linear = config.mel.n_fft // 2 + 1
        hint = " (a linear spectrogram, not a mel)" if linear in array.shape else ""
        return verdict(
            "bands",
            f"shape {shape}{hint}; the model reads {bands} bands",
            "make the mels with the model's settings (`fastglow mel`)",
        )
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        return verdict(
            "not-finite",
            f"{bad} of {array.size} values are NaN or infinite",
            "make the mel again; log(0) needs a floor of 1e-5",
        )
    return None


def _wrong_hop(frames: int, config: WaveGlowConfig, seconds: float | None) -> Diagnosis | None:
    """Compares the frames with the length of the recording."""
    if not seconds or seconds <= 0:
        return None
    samples = seconds * config.sampling_rate
    expected = samples / config.hop_length + 1
    if abs(frames - expected) <= max(4, 0.03 * expected):
        return None
    hop = samples / max(frames - 1, 1)
    return Diagnosis(
        "hop",
        False,
        1.0,
        f"wrong hop or rate: {frames} frames where {expected:.0f} are expected",
        (
            f"{seconds:.2f} s at {config.sampling_rate} Hz with a hop of {config.hop_length}",
            f"{frames} frames would be a hop of {hop:.0f} samples "
            f"({1000 * hop / config.sampling_rate:.1f} ms)",
        ),
        "make the mels with the model's rate and hop (`fastglow mel`)",
    )


def _scale_of(mel: NDArray[Any], config: WaveGlowConfig) -> Diagnosis:
    """The scale of a well-formed mel [n_mel, frames]."""
    start = max(0, (mel.shape[1] - MAX_FRAMES) // 2)
    values = mel[:, start : start + MAX_FRAMES].astype(np.float64)
    low, high, mean = float(values.min()), float(values.max()), float(values.mean())
    evidence = [f"values {low:.4g} to {high:.4g}, mean {mean:.4g}, {mel.shape[1]} frames"]
    if high - low <= 1e-6 * max(1.0, abs(low)):
        return _constant(low, evidence)
    measured = Measured.of(values)
    found = chances(measured, config)
    found["ln"] += 3 + 40 / values.shape[1]  # most mels are ln, and short ones tell little
    weights = np.exp(np.array(list(found.values())) - max(found.values()))
    weights /= weights.sum()
    probable = dict(zip(found, weights.tolist(), strict=True))
    best = "ln" if probable["ln"] >= DOUBT else max(probable, key=lambda name: probable[name])
    evidence += _reasons(measured, best, probable)
    if best != "ln" and abs(mean) < 0.15 and abs(values.std() - 1) < 0.12 and low < -0.5:
        return Diagnosis(
            "standardised",
            False,
            0.5,
            "looks standardised: mean 0 and deviation 1",
            tuple(evidence),
            "multiply by the deviation and add the mean that it was standardised with",
        )
    if found[best] < (LN_UNLIKELY if best == "ln" else UNLIKELY):
        return Diagnosis(
            "unknown",
            False,
            0.5,
            "like speech at no known scale",
            tuple(evidence),
            "compare how it was made with `fastglow mel` on the same recording",
        )
    return _named(best, probable[best], tuple(evidence))


def _named(best: str, confidence: float, evidence: tuple[str, ...]) -> Diagnosis:
    if best == "ln":
        summary = "a natural-log mel, as the model expects"
        if confidence < 0.5:
            summary = "perhaps a natural-log mel; too little or too unusual to tell"
        return Diagnosis("ln", True, confidence, summary, evidence, scale="ln")
    mend = f"--mel-scale {best}"
    if best in ALIKE:
        mend += f", or {ALIKE[best]}, which comes out 13 dB apart: judge by the loudness"
    return Diagnosis(
        best,
        False,
        confidence,
        f"{SCALES[best].formula}, where the model expects the natural logarithm",
        evidence,
        mend,
        best,
    )


def _constant(value: float, evidence: list[str]) -> Diagnosis:
    if abs(value - LN_FLOOR) < 0.01:
        return Diagnosis("silent", True, 1.0, "silence: every value is ln(1e-5)", tuple(evidence))
    return Diagnosis(
        "constant",
        False,
        1.0,
        f"every value is {value:.4g}",
        tuple(evidence),
        "make the mel again",
    )


def _reasons(measured: Measured, best: str, probable: dict[str, float]) -> list[str]:
    """What the choice rests on, for people."""
    scale = SCALES[best]
    figures = measured.under(scale) or measured.plain
    spread = scale.slope * (figures.high - figures.low)
    lines = [f"read as {best}, 96 % of the cells lie within {spread:.1f} in ln (speech: 5 to 10)"]
    if figures.texture is not None:
        step = scale.slope * float(np.exp(figures.texture))
        lines.append(f"and a cell differs from the next by {step:.2f} (speech: 0.25 to 0.45)")
    others = sorted((n for n in probable if n != best), key=lambda n: -probable[n])
    if probable[others[0]] >= 0.01:
        lines.append(f"next best: {others[0]} ({100 * probable[others[0]]:.0f} %)")
    return lines
