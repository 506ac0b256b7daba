"""Random models and inputs at the published shapes, with activations of a realistic size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastglow.checkpoint.weights import Weights, expected_shapes
from fastglow.config import WaveGlowConfig, WNConfig
from fastglow.noise import normal

SIGMA = 0.6  # the original's default in inference


def published(channels: int) -> WaveGlowConfig:
    """The published hyperparameters with ``channels`` WN channels."""
    return WaveGlowConfig(wn=WNConfig(n_channels=channels))


def random_weights(config: WaveGlowConfig, seed: int = 0) -> Weights:
    """Float32-exact Gaussian weights of variance 1/fan-in, orthogonal 1x1 convolutions.

    ``end`` is held to a tenth, so that the couplings' scales stay near 1 as in a trained model
    and the audio stays near the noise's size. Values are rounded to float32 first, so every
    candidate and the float64 reference hold the same numbers.
    """
    rng = np.random.default_rng(seed)
    tensors: dict[str, NDArray[np.generic]] = {}
    for name, shape in expected_shapes(config).items():
        if "convinv" in name:
            value = np.linalg.qr(rng.standard_normal(shape[:2]))[0].reshape(shape)
        elif name.endswith("bias"):
            value = 0.1 * rng.standard_normal(shape)
        else:
            gain = 0.1 if ".end." in name else 1.0
            value = gain * rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        tensors[name] = value.astype(np.float32)
    return Weights(config, tensors)


def random_input(
    config: WaveGlowConfig, frames: int, seed: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One mel and its noise, scaled by sigma.

    Returns:
        mel [1, n_mel, frames] float32, unit variance; noise [1, samples] float32.
    """
    rng = np.random.default_rng(seed)
    mel = rng.standard_normal((1, config.n_mel_channels, frames), dtype=np.float32)
    noise = np.float32(SIGMA) * normal(seed, config.samples(frames))
    return mel, noise[None].astype(np.float32)


def relative_error(found: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Largest absolute difference over the largest magnitude; infinite if any is NaN."""
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    return error if np.isfinite(error) else float("inf")
