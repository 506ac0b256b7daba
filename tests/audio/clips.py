"""Recorded speech for the tests, and the mels that other libraries make of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import librosa
import numpy as np
import soundfile

from fastglow.config import WaveGlowConfig

FOLDER = Path(__file__).parent.parent / "data" / "audio"
FILES = sorted(FOLDER.glob("*.flac"))


@cache
def wave(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


def librosa_mel(
    audio: np.ndarray, config: WaveGlowConfig | None = None, power: float = 1.0
) -> np.ndarray:
    """The mel of magnitudes (power 1) or of powers (2) in float64, without a logarithm."""
    config = config or WaveGlowConfig()
    mel = config.mel
    spectrum = np.abs(
        librosa.stft(
            audio.astype(np.float64),
            n_fft=mel.n_fft,
            hop_length=config.hop_length,
            win_length=mel.win_length,
            window="hann",
            center=True,
            pad_mode="reflect",
        )
    )
    filters = librosa.filters.mel(
        sr=config.sampling_rate,
        n_fft=mel.n_fft,
        n_mels=config.n_mel_channels,
        fmin=mel.fmin,
        fmax=mel.fmax,
        htk=False,
        norm="slaney",
        dtype=np.float64,
    )
    return filters @ spectrum**power
