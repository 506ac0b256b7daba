"""fastglow: the fastest WaveGlow vocoder, from Python.

>>> import fastglow
>>> v = fastglow.Vocoder.load()
>>> audio = v.synthesize(mel, sigma=0.6, seed=0)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastglow.errors import FastglowError

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fastglow.audio import mel_spectrogram
    from fastglow.vocoder import Vocoder

__all__ = ["FastglowError", "Vocoder", "__version__", "mel_spectrogram"]


def __dir__() -> list[str]:
    return [*globals(), "Vocoder", "mel_spectrogram"]


def __getattr__(name: str) -> Any:
    """Import on first use: `fastglow --help` must not wait for numpy and LLVM."""
    if name == "Vocoder":
        from fastglow.vocoder import Vocoder

        return Vocoder
    if name == "mel_spectrogram":
        from fastglow.audio import mel_spectrogram

        return mel_spectrogram
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
