"""Signals whose figures are known."""

import numpy as np

from fastglow.audio import read_audio
from fastglow.voices import FOLDER

RATE = 22050


def speech(seconds=1.5):
    """The start of the demo's recording, whose first words come at once."""
    return read_audio(FOLDER / "demo" / "original.flac")[0][: int(seconds * RATE)]


def noise(level, seconds=2.0, seed=0):
    return level * np.random.default_rng(seed).standard_normal(int(seconds * RATE))


def voiced(hertz, seconds=1.0, level=0.1):
    """A harmonic tone with the tilt of a glottis."""
    phase = 2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE
    return level * sum(np.sin(k * phase) / k for k in range(1, 11))
