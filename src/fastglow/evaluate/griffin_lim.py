"""The baseline: Griffin-Lim, which knows nothing of speech, from the same mel."""

from __future__ import annotations

import numpy as np

from fastglow.audio.bands import filter_bank
from fastglow.audio.mel import Float32
from fastglow.config import WaveGlowConfig
from fastglow.evaluate.libraries import optional, padding_quietly

ITERATIONS = 60


def griffin_lim(mel: Float32, config: WaveGlowConfig, samples: int, seed: int = 0) -> Float32:
    """Audio from a mel by non-negative least squares, then 60 iterations of fast Griffin-Lim.

    Args:
        mel: [n_mel, frames], ln.
        config: The voice's; its STFT is inverted.
        samples: How many to give.
        seed: Of the phases that the iteration starts from.

    Returns:
        float32 [samples].

    Source: Perraudin et al., "A fast Griffin-Lim algorithm", WASPAA 2013, as librosa runs it
        (momentum 0.99).
    """
    bank = filter_bank(config.mel, config.n_mel_channels, config.sampling_rate)
    librosa = optional("librosa")
    magnitude = librosa.util.nnls(np.asarray(bank), np.exp(mel.astype(np.float64)))
    with padding_quietly():
        audio = librosa.griffinlim(
            magnitude,
            n_iter=ITERATIONS,
            hop_length=config.hop_length,
            win_length=config.mel.win_length,
            n_fft=config.mel.n_fft,
            length=samples,
            random_state=np.random.default_rng(seed),
        )
    return np.asarray(audio, dtype=np.float32)
