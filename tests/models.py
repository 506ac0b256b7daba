"""Small random models whose activations have a realistic size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastglow.checkpoint.weights import Weights, expected_shapes
from fastglow.config import WaveGlowConfig, WNConfig

TINY = WaveGlowConfig(
    n_mel_channels=8, n_flows=4, n_early_every=2, wn=WNConfig(n_layers=3, n_channels=16)
)
# One of each thing that a loop could get wrong: padding, odd sizes, one layer, other hops.
ODD = {
    "tiny": TINY,
    "odd channels, kernel 5, swapped halves": replace(
        TINY, wn=WNConfig(n_layers=4, n_channels=18, kernel_size=5), coupling="alternating"
    ),
    "odd mel bands": replace(TINY, n_mel_channels=7),
    "one layer": replace(TINY, n_flows=3, wn=WNConfig(n_layers=1, n_channels=16)),
    "no early outputs, group of 4": replace(TINY, n_early_size=0, n_group=4),
    "group of 12, wide early outputs": replace(
        TINY, n_group=12, n_early_size=4, hop_length=240, upsample_kernel=960
    ),
    "kernel no multiple of the hop": replace(TINY, hop_length=64, upsample_kernel=200),
    "kernel of 1, hop of one step": replace(
        TINY, hop_length=8, upsample_kernel=8, wn=WNConfig(n_layers=2, n_channels=5, kernel_size=1)
    ),
    "dilation over many frames": replace(
        TINY, hop_length=16, upsample_kernel=64, wn=WNConfig(n_layers=7, n_channels=8)
    ),
}
RAGGED = replace(TINY, hop_length=250, upsample_kernel=1000)


def random_weights(config: WaveGlowConfig, seed: int = 0) -> Weights:
    """Gaussian weights of variance 1/fan-in; orthogonal 1x1 convolutions."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in expected_shapes(config).items():
        if "convinv" in name:
            q = np.linalg.qr(rng.standard_normal(shape[:2]))[0]
            tensors[name] = q.reshape(shape)
        elif name.endswith("bias"):
            tensors[name] = 0.1 * rng.standard_normal(shape)
        else:
            fan_in = np.prod(shape[1:])
            gain = 0.1 if ".end." in name else 1.0
            tensors[name] = gain * rng.standard_normal(shape) / np.sqrt(fan_in)
    return Weights(config, tensors)


def random_input(
    config: WaveGlowConfig, frames: int, rows: int = 1, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """A mel [rows, n_mel, frames] and noise [rows, samples], float64."""
    rng = np.random.default_rng(seed)
    mel = rng.standard_normal((rows, config.n_mel_channels, frames))
    return mel, rng.standard_normal((rows, config.samples(frames)))


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference over the largest magnitude."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
