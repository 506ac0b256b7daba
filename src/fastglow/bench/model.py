"""Models and inputs to measure with: random ones of a realistic size, or the user's own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.cache import LIMIT_NAME
from fastglow.checkpoint import load_weights, save_safetensors
from fastglow.checkpoint.weights import Weights, expected_shapes
from fastglow.config import WaveGlowConfig, WNConfig
from fastglow.noise import normal
from fastglow.voices import FOLDER, find_voice

Float32 = NDArray[np.float32]
SIGMA = 0.6  # the original's default in inference
SHIFT = 17  # frames by which each further row of a batch is turned


@dataclass(frozen=True, slots=True)
class Model:
    """A model to measure.

    Attributes:
        label: For people, without a path.
        source: What :meth:`fastglow.Vocoder.load` reads.
        weights: The same weights, for the reference and the peers.
        random: Whether the weights are random; then so is the mel.
        options: What ``load`` must be told beside the source.
    """

    label: str
    source: Path
    weights: Weights
    random: bool
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What every candidate is given.

    Attributes:
        mel: [B, n_mel, frames] float32.
        noise: [B, samples] float32, scaled by sigma.
    """

    mel: Float32
    noise: Float32

    @property
    def batch(self) -> int:
        """Rows."""
        return int(self.mel.shape[0])

    @property
    def frames(self) -> int:
        """Mel frames of each row."""
        return int(self.mel.shape[2])


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


@contextmanager
def random_model(config: WaveGlowConfig, seed: int) -> Iterator[Model]:
    """A random model as a checkpoint in a temporary folder, so that it loads as any other.

    Its packed weights are not kept: they would push out those of the user's voices.
    """
    limit = os.environ.get(LIMIT_NAME)
    os.environ[LIMIT_NAME] = "0"
    try:
        with tempfile.TemporaryDirectory(prefix="fastglow-bench-") as folder:
            weights = random_weights(config, seed)
            save_safetensors(weights, Path(folder), dtype="float32")
            yield Model("random weights", Path(folder), weights, random=True)
    finally:
        del os.environ[LIMIT_NAME]
        os.environ.update({} if limit is None else {LIMIT_NAME: limit})


def stored_model(
    source: str, hop: int | None = None, rate: int | None = None, dialect: str | None = None
) -> Model:
    """A checkpoint or a shipped voice.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        InputError: There is no such file or voice.
    """
    path, options = find_voice(source), {"hop": hop, "rate": rate, "dialect": dialect}
    weights = load_weights(path, hop=hop, rate=rate, dialect=dialect)
    return Model(path.name, path, weights, random=False, options=options)


def make_inputs(model: Model, frames: int, batch: int, prefix: int, seed: int) -> Inputs:
    """A batch whose rows begin alike, so that one reference checks them all.

    Random models get a mel of unit variance, real ones speech: the shipped demo's mel, repeated.
    A longer input begins with a shorter one.

    Args:
        model: The model.
        frames: Of each row.
        batch: Rows.
        prefix: Frames that all rows share; after them each is another turn of the first.
        seed: Of the mel and the noise.
    """
    config = model.weights.config
    bands = config.n_mel_channels
    if model.random:
        rng = np.random.default_rng(seed)
        mel = rng.standard_normal((frames, bands), dtype=np.float32).T
    else:
        speech = np.load(FOLDER / "demo" / "mel.npy").astype(np.float32)
        speech = speech[np.linspace(0, len(speech) - 1, bands).round().astype(int)]
        mel = np.tile(speech, (1, -(-frames // speech.shape[1])))[:, :frames]
    noise = np.float32(SIGMA) * normal(seed, config.samples(frames))
    return Inputs(
        _rows(mel, batch, prefix, SHIFT),
        _rows(noise, batch, config.samples(prefix), SHIFT * config.n_group),
    )


def _rows(row: Float32, batch: int, kept: int, shift: int) -> Float32:
    """[B, ..., n]: row b is ``row`` with what follows ``kept`` turned by ``b * shift``."""
    turned = [np.roll(row[..., kept:], b * shift, axis=-1) for b in range(batch)]
    return np.stack([np.concatenate([row[..., :kept], tail], axis=-1) for tail in turned])
