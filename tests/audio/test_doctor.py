"""The mel doctor on real speech of four speakers in every convention."""

from __future__ import annotations

import warnings
from functools import cache

import clips
import numpy as np
import pytest
from conventions import CONVENTIONS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastglow.audio import SCALES, convert_mel, diagnose, mel_spectrogram
from fastglow.config import MelConfig, WaveGlowConfig

ALIKE = {"db": {"db", "db-power"}, "db-power": {"db", "db-power"}}  # 13 dB apart, no more
PATHS = pytest.mark.parametrize("path", clips.FILES, ids=lambda p: p.stem)


@cache
def both(path):
    audio = clips.wave(path)
    return clips.librosa_mel(audio), clips.librosa_mel(audio, power=2.0)


def mel_of(name: str, path, gain_db: float = 0.0, cut: slice = slice(None)) -> np.ndarray:
    magnitude, power = (part[:, cut] for part in both(path))
    gain = 10 ** (gain_db / 20)
    return CONVENTIONS[name][1](magnitude * gain, power * gain**2).astype(np.float32)


@PATHS
@pytest.mark.parametrize("name", CONVENTIONS)
def test_recognises(name, path):
    wanted = CONVENTIONS[name][0]
    found = diagnose(mel_of(name, path))
    assert found.verdict in ALIKE.get(wanted, {wanted}), found
    assert found.ok == (wanted == "ln")
    assert found.scale == found.verdict
    assert found.confidence > 0.5
    assert found.evidence
    assert "\n" not in found.summary + found.mend
    assert found.ok or f"--mel-scale {found.verdict}" in found.mend


@PATHS
@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_mend_mends(name, path):
    mel = mel_of(name, path)
    mended = convert_mel(mel, diagnose(mel).scale)
    assert diagnose(mended).verdict == "ln"


@settings(max_examples=300, deadline=None)
@given(
    path=st.sampled_from(clips.FILES),
    gain=st.floats(-20, 20),
    frames=st.integers(10, 400),
    start=st.integers(0, 300),
)
def test_a_proper_mel_is_never_flagged(path, gain, frames, start):
    total = both(path)[0].shape[1]
    start = min(start, total - 10)
    found = diagnose(mel_of("ln", path, gain, slice(start, start + frames)))
    assert found.ok, found
    assert found.verdict in ("ln", "silent")


@pytest.mark.parametrize("name", [n for n, (scale, _) in CONVENTIONS.items() if scale != "ln"])
@settings(max_examples=25, deadline=None)
@given(
    path=st.sampled_from(clips.FILES),
    gain=st.floats(-20, 20),
    frames=st.integers(10, 400),
    start=st.integers(0, 300),
)
def test_at_any_gain_and_length_nothing_far_off_is_said(name, path, gain, frames, start):
    """A short piece may pass as ln for want of evidence, or as the scale next to its own."""
    start = min(start, both(path)[0].shape[1] - 10)
    mel = mel_of(name, path, gain, slice(start, start + frames))
    found = diagnose(mel)
    wanted = CONVENTIONS[name][0]
    near = {
        "log10": {"log10", "norm-sym4", "ln"},
        "norm-sym4": {"norm-sym4", "log10", "ln", "standardised"},
        "ln-power": {"ln-power", "ln"},
        "magnitude": {"magnitude", "power"},
        "power": {"magnitude", "power"},
        "norm01": {"norm01", "magnitude"},
    }
    allowed = {wanted, "constant", "unknown"} | ALIKE.get(wanted, set()) | near.get(wanted, set())
    assert found.verdict in allowed, found


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(sorted(CONVENTIONS)),
    path=st.sampled_from(clips.FILES),
    gain=st.floats(-10, 10),
)
def test_whole_utterances_are_recognised_at_any_gain(name, path, gain):
    wanted = CONVENTIONS[name][0]
    found = diagnose(mel_of(name, path, gain))
    assert found.verdict in ALIKE.get(wanted, {wanted}), found


@PATHS
@pytest.mark.parametrize("name", ["ln", "log10", "db", "norm-sym4"])
def test_transposed(name, path):
    found = diagnose(mel_of(name, path).T)
    assert (found.verdict, found.ok, found.confidence) == ("transposed", False, 1.0)
    assert found.scale == name
    assert "save mel.T" in found.mend
    assert (f"--mel-scale {name}" in found.mend) == (name != "ln")


OTHERS = {
    "16k": WaveGlowConfig(sampling_rate=16000, hop_length=200, mel=MelConfig(1024, 800)),
    "24k": WaveGlowConfig(sampling_rate=24000, hop_length=300, mel=MelConfig(2048, 1200, 80, 7600)),
    "44k": WaveGlowConfig(
        sampling_rate=44100, hop_length=512, n_mel_channels=128, mel=MelConfig(2048, 2048, 0, None)
    ),
    "hop 128": WaveGlowConfig(hop_length=128),
    "hop 512": WaveGlowConfig(hop_length=512),
}


@PATHS
@pytest.mark.parametrize("config", OTHERS.values(), ids=OTHERS)
def test_other_models(config, path):
    mel = mel_spectrogram(clips.wave(path), 22050, config=config)
    assert diagnose(mel, config).verdict == "ln"
    assert diagnose(mel / np.log(10), config).verdict == "log10"
    assert diagnose(mel * 20 / np.log(10), config).verdict in ALIKE["db"]


@PATHS
def test_the_hop_is_told_by_the_length_alone(path):
    audio = clips.wave(path)
    seconds = len(audio) / 22050
    mel = mel_spectrogram(audio, 22050)
    assert diagnose(mel, seconds=seconds).verdict == "ln"
    wide = mel_spectrogram(audio, 22050, config=WaveGlowConfig(hop_length=300))
    found = diagnose(wide, seconds=seconds)
    assert (found.verdict, found.ok) == ("hop", False)
    assert "a hop of 30" in found.evidence[1] or "a hop of 29" in found.evidence[1]


def broken(value: float) -> np.ndarray:
    mel = mel_of("ln", clips.FILES[0])
    mel[5, 6] = value
    return mel


SPOILT = {
    "nan": (broken(np.nan), "not-finite", False),
    "inf": (broken(np.inf), "not-finite", False),
    "silence": (np.full((80, 30), np.log(1e-5), np.float32), "silent", True),
    "zeros": (np.zeros((80, 30), np.float32), "constant", False),
    "no frames": (np.zeros((80, 0), np.float32), "empty", False),
    "bands": (np.zeros((64, 30), np.float32), "bands", False),
    "linear": (np.zeros((513, 30), np.float32), "bands", False),
    "vector": (np.zeros(80, np.float32), "shape", False),
    "integers": (np.zeros((80, 30), np.int16), "shape", False),
    "noise": (np.random.default_rng(0).normal(-5, 2, (80, 200)), "unknown", False),
    "far off": (np.linspace(1e4, 2e4, 2400, dtype=np.float32).reshape(80, 30), "unknown", False),
}


@pytest.mark.parametrize(("mel", "verdict", "ok"), SPOILT.values(), ids=SPOILT)
def test_spoilt(mel, verdict, ok):
    found = diagnose(mel)
    assert (found.verdict, found.ok, found.scale) == (verdict, ok, None)
    assert ok or found.mend


def test_standardised():
    mel = mel_of("ln", clips.FILES[0])
    found = diagnose((mel - mel.mean()) / mel.std())
    assert (found.verdict, found.scale) == ("standardised", None)


@settings(max_examples=200, deadline=None)
@example(frames=2, bands=1, exponent=2, seed=60, dtype=np.float16)  # no scale fits; logs constant
@example(frames=2, bands=8, exponent=-40, seed=0, dtype=np.float64)
@given(
    frames=st.integers(0, 90),
    bands=st.sampled_from([1, 8, 80, 81]),
    exponent=st.integers(-40, 38),
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_whatever_it_is_there_is_a_diagnosis_without_a_warning(
    frames, bands, exponent, seed, dtype
):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rng = np.random.default_rng(seed)
        mel = rng.standard_normal((bands, frames)) * 10.0**exponent
        with np.errstate(over="ignore"):
            mel = mel.astype(dtype)
        found = diagnose(mel, WaveGlowConfig(n_mel_channels=80 if bands > 8 else bands))
    assert 0 <= found.confidence <= 1
    assert found.scale is None or found.scale in SCALES
