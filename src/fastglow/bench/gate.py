"""The gate: no speed without correct audio.

Every candidate's audio is compared with the published network in float64, on the same noise and
at the very shape that is timed. The reference is evaluated on a short input only: a flow sees a
bounded number of steps ahead, so the first samples of a long utterance equal those of its
beginning, and all rows of a batch begin alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fastglow.bench.model import Float32, Inputs
from fastglow.checkpoint.weights import Weights
from fastglow.config import WaveGlowConfig
from fastglow.reference import WaveGlow

# Of the peak, models trained by likelihood.
BARS = {"fp16": 2e-3, "tf32": 2e-3, "bf16": 1.5e-2, "int8": 3e-2}
FP32_BAR = 5e-6
CHECKED_FRAMES = 32  # of a long utterance


@dataclass(frozen=True, slots=True)
class Expected:
    """What the audio must be.

    Attributes:
        audio: [checked] float64, the first samples of every row.
        fp32_error: The error of the published network in PyTorch's float32 on the same input.
    """

    audio: NDArray[np.float64]
    fp32_error: float


def lookahead(config: WaveGlowConfig) -> int:
    """Audio samples after a sample that it depends on, all flows."""
    steps = config.wn.kernel_size // 2 * ((1 << config.wn.n_layers) - 1)
    return config.n_flows * steps * config.n_group


def reference_frames(config: WaveGlowConfig) -> int:
    """Frames of the longest input that the reference is evaluated on."""
    return CHECKED_FRAMES + -(-lookahead(config) // config.hop_length)


def references(weights: Weights, inputs: Inputs, lengths: Iterable[int]) -> dict[int, Expected]:
    """The expected audio of inputs that begin like ``inputs``.

    Args:
        weights: The model.
        inputs: At least as long as the longest reference needed.
        lengths: Frames of the inputs that will be timed.

    Returns:
        By those frames.
    """
    config = weights.config
    limit = reference_frames(config)
    exact, single = (WaveGlow.from_weights(weights, t) for t in (torch.float64, torch.float32))
    wanted = sorted(set(lengths))
    audio = {
        frames: (_infer(exact, inputs, frames), _infer(single, inputs, frames))
        for frames in {min(frames, limit) for frames in wanted}
    }
    found: dict[int, Expected] = {}
    for frames in wanted:
        right, fp32 = audio[min(frames, limit)]
        checked = len(right) - (lookahead(config) if frames > limit else 0)
        error = relative_error(fp32[:checked], right[:checked])
        found[frames] = Expected(right[:checked], error)
    return found


def _infer(model: WaveGlow, inputs: Inputs, frames: int) -> NDArray[np.float64]:
    """Audio [samples] of the first row's first frames, in the model's precision."""
    dtype = next(model.parameters()).dtype
    samples = model.config.samples(frames)
    mel = torch.from_numpy(inputs.mel[:1, :, :frames]).to(dtype)
    noise = torch.from_numpy(inputs.noise[:1, :samples]).to(dtype)
    with torch.inference_mode():
        return model.infer(mel, noise)[0].double().numpy()


def audio_error(found: Float32, expected: Expected, shape: tuple[int, ...]) -> float:
    """The largest error of any row [B, samples]; infinite if the shape is another."""
    if found.shape != shape:
        return float("inf")
    return relative_error(found[:, : len(expected.audio)], expected.audio)


def bar(precision: str, fp32_error: float) -> float:
    """The largest error that may pass in a precision."""
    return BARS.get(precision) or max(FP32_BAR, 2 * fp32_error)


def comparable(peer: str, precision: str) -> bool:
    """Whether a peer's precision is at least as good, so that a comparison is fair."""
    return BARS.get(peer, 0.0) <= BARS.get(precision, 0.0)


def relative_error(found: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Largest absolute difference over the largest magnitude; infinite if any is NaN."""
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    return error if np.isfinite(error) else float("inf")
