"""A tiny model and tiny speech, for seconds of training on a CPU."""

import numpy as np
import pytest
import torch

from fastglow.config import MelConfig, WaveGlowConfig, WNConfig


@pytest.fixture
def config() -> WaveGlowConfig:
    return WaveGlowConfig(
        n_mel_channels=12,
        n_flows=4,
        n_group=8,
        n_early_every=2,
        hop_length=32,
        upsample_kernel=128,
        sampling_rate=8000,
        wn=WNConfig(n_layers=3, n_channels=16),
        mel=MelConfig(n_fft=128, win_length=128, fmax=4000.0),
    )


@pytest.fixture
def waves() -> list[torch.Tensor]:
    """Harmonic tones with vibrato, a second each."""
    out = []
    for i in range(4):
        t = np.arange(8000) / 8000
        phase = 2 * np.pi * (110 + 30 * i) * t + 2 * np.sin(2 * np.pi * 5 * t)
        tone = sum(np.sin(h * phase) / h for h in range(1, 8))
        out.append(torch.from_numpy((6000 * tone).astype(np.int16)))
    return out
