"""Mel matching: draws the audio's mel to the one that it was made from.

A network meets its mel only about: band by band and frame by frame glow-64 is 0.2 Np off, in no
particular direction. The mel is known, so that much can be mended afterwards: each frame's
spectrum is scaled by what its bands lack, and its phase stays. One pass takes a third off the
distance; a second gains nothing in PESQ (benchmarks/LOG.md).

Source: a step of Griffin and Lim 1984 with mel magnitudes, from the network's phase.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.arguments import check_settings
from fastglow.audio.bands import band_centres, bands_of, bins_of
from fastglow.audio.frames import BLOCK, Float64, Spectra, hann, scratch
from fastglow.audio.mel import FLOOR, Float32
from fastglow.audio.overlap import Overlap
from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError

LIMIT = 2.0  # Np (17 dB) that a band may be scaled by; from 0.5 to 2 it hardly mattered


def matchable(config: WaveGlowConfig) -> bool:
    """Whether a model's windows overlap enough: else ends are divided by next to nothing."""
    return 3 * config.hop_length <= config.mel.win_length


def match_strength(asked: float | None, config: WaveGlowConfig, *, recorded: bool) -> float:
    """How strongly to match.

    Args:
        asked: By the user; None: 1 for mels of recordings, where the model allows it, else 0.
        config: The model.
        recorded: Whether the mel is that of a recording.
    """
    return float(recorded and matchable(config)) if asked is None else asked


class MelMatcher:
    """Scales a model's audio to the mel that it was made from. Safe to call from several threads.

    Args:
        config: The model, for its mel.
        block: Frames at a time, at most; the result does not depend on it.

    Raises:
        InputError: The mel's windows hardly overlap, so that no audio follows from them.
    """

    def __init__(self, config: WaveGlowConfig, *, block: int = BLOCK) -> None:
        mel = config.mel
        if not matchable(config):
            raise InputError(
                f"mel matching needs windows of at least three hops; this model has "
                f"win_length={mel.win_length} and a hop of {config.hop_length}"
            )
        layout = (mel, config.n_mel_channels, config.sampling_rate)
        self._config, self._block = config, block
        self._bands = bands_of(*layout)
        bins = bins_of(mel, config.sampling_rate)
        place = np.interp(bins, band_centres(*layout), np.arange(config.n_mel_channels))
        self._below = place.astype(np.int64)  # the outermost bands stand for what is past them
        self._above = np.minimum(self._below + 1, config.n_mel_channels - 1)
        self._share = (place - self._below).astype(np.float32)

    def __call__(
        self, audio: NDArray[np.floating[Any]], mel: Float32, strength: float = 1.0
    ) -> Float32:
        """The audio with a mel nearer to the given one.

        Args:
            audio: [samples] floating point.
            mel: [n_mel, frames] What it was made from; frames past its end change nothing.
            strength: Share of the difference that each band is scaled by; 0 returns the audio.

        Returns:
            float32 [samples].

        Raises:
            InputError: The strength is not within 0 and 1, or a shape or value is unusable.
        """
        check_settings(match_mel=strength)
        bands = self._config.n_mel_channels
        if audio.ndim != 1 or mel.ndim != 2 or len(mel) != bands or not np.isfinite(mel).all():
            raise InputError(
                f"audio of shape {list(audio.shape)} and a mel of shape {list(mel.shape)}; "
                f"expected [samples] and [{bands}, frames], finite"
            )
        if strength == 0 or audio.size == 0:
            return audio.astype(np.float32, copy=False)
        matching = self.begin(strength)
        matching.hear(mel)
        return np.concatenate([matching.push(audio), matching.finish()])

    def begin(self, strength: float) -> Matching:
        """The same for audio that comes in pieces."""
        return Matching(self, strength)

    def overlap(self, matching: Matching) -> Overlap:
        """The frames of the model's mel, for ``matching`` to scale."""
        mel = self._config.mel
        window = hann(mel.win_length, mel.n_fft)
        return Overlap(window, self._config.hop_length, matching.scaled, self._block)

    def lack(self, spectra: Spectra) -> Float64:
        """-ln of the bands [count, n_mel] that spectra have."""
        lack: Float64 = -np.log(np.maximum(self._bands(spectra), FLOOR))
        return lack

    def spread(self, gain: Float32) -> Float32:
        """Bands [count, n_mel] to bins [count, n_fft // 2 + 1], in a line from centre to centre.

        In scratch: a thread's next call overwrites it.
        """
        shape = (len(gain), self._below.size)
        below, spread = (scratch(name, *shape, dtype=np.float32) for name in ("below", "spread"))
        for found, bands in ((below, self._below), (spread, self._above)):
            np.take(gain, bands, axis=1, out=found, mode="clip")  # else it makes a copy first
        spread -= below
        spread *= self._share
        spread += below
        return spread


class Matching:
    """Audio in pieces, drawn to a mel in pieces, which must come no later than its audio."""

    def __init__(self, matcher: MelMatcher, strength: float) -> None:
        self._matcher, self._strength = matcher, strength
        self._overlap = matcher.overlap(self)
        self._mels: list[Float64] = []  # [frames, n_mel] each, of frames that are still to come

    def hear(self, mel: Float32) -> None:
        """Takes in mel [n_mel, frames]."""
        self._mels.append(np.maximum(mel.T.astype(np.float64), np.log(FLOOR)))

    def push(self, audio: NDArray[np.floating[Any]]) -> Float32:
        """Takes in audio [samples]; gives what has become final."""
        return self._overlap.push(audio)

    def finish(self) -> Float32:
        """The rest."""
        rest = self._overlap.finish()
        self._mels.clear()
        return rest

    def scaled(self, spectra: Spectra) -> Spectra:
        """The next frames' spectra with the bands that the mel has."""
        gain = self._matcher.lack(spectra)
        known = self._mels[0] if len(self._mels) == 1 else np.concatenate([gain[:0], *self._mels])
        count = min(len(gain), len(known))
        gain[:count] += known[:count]
        gain[count:] = 0
        self._mels = [known[count:]]
        limited = np.clip(self._strength * gain, -LIMIT, LIMIT).astype(np.float32)
        factors = self._matcher.spread(limited)
        spectra *= np.exp(factors, out=factors)  # in float32, a fifth of float64's time
        return spectra
