"""Mels as other code bases make them, from recorded speech, with librosa's own functions."""

from __future__ import annotations

from collections.abc import Callable

import librosa
import numpy as np

Make = Callable[[np.ndarray, np.ndarray], np.ndarray]


def tacotron_1(magnitude: np.ndarray) -> np.ndarray:
    """keithito/tacotron: ref_level_db 20, min_level_db -100."""
    level = 20 * np.log10(np.maximum(1e-5, magnitude)) - 20
    return np.clip((level + 100) / 100, 0, 1)


def rayhane(magnitude: np.ndarray, largest: float) -> np.ndarray:
    """Rayhane-mamah/Tacotron-2: symmetric_mels, max_abs_value."""
    level = 20 * np.log10(np.maximum(1e-5, magnitude)) - 20
    return np.clip(2 * largest * ((level + 100) / 100) - largest, -largest, largest)


# name: (scale that the doctor should name, what makes it of M and P)
CONVENTIONS: dict[str, tuple[str, Make]] = {
    "ln": ("ln", lambda m, p: np.log(np.maximum(m, 1e-5))),
    "ln, floor 1e-10": ("ln", lambda m, p: np.log(np.maximum(m, 1e-10))),
    "log10": ("log10", lambda m, p: np.log10(np.maximum(m, 1e-5))),
    "log10, floor 1e-10": ("log10", lambda m, p: np.log10(np.maximum(m, 1e-10))),
    "db": ("db", lambda m, p: librosa.amplitude_to_db(m, ref=1.0, top_db=None)),
    "db, top 80": ("db", lambda m, p: librosa.amplitude_to_db(m, ref=1.0)),
    "db, ref max": ("db", lambda m, p: librosa.amplitude_to_db(m, ref=np.max)),
    "db-power": ("db-power", lambda m, p: librosa.power_to_db(p, ref=1.0)),
    "db-power, no top": ("db-power", lambda m, p: librosa.power_to_db(p, top_db=None)),
    "db-power, ref max": ("db-power", lambda m, p: librosa.power_to_db(p, ref=np.max)),
    "ln-power": ("ln-power", lambda m, p: np.log(np.maximum(p, 1e-10))),
    "magnitude": ("magnitude", lambda m, p: m),
    "power": ("power", lambda m, p: p),
    "norm01": ("norm01", lambda m, p: tacotron_1(m)),
    "norm-sym1": ("norm-sym1", lambda m, p: rayhane(m, 1.0)),
    "norm-sym4": ("norm-sym4", lambda m, p: rayhane(m, 4.0)),
}
