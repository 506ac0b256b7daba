"""A plan evaluated in plain numpy: slow, device-free, the oracle of the rewriting."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastglow.plan.plan import FlowPlan, Plan
from fastglow.plan.upsample import upsampled

Float64 = NDArray[np.float64]


def evaluate(plan: Plan, mel: Float64, noise: Float64, sigma: float) -> Float64:
    """Audio [samples] of one mel [M, frames] and its noise [samples], in float64."""
    config = plan.config
    steps = config.steps(mel.shape[1])
    audio = sigma * noise[: steps * config.n_group].reshape(steps, config.n_group).T
    inputs = _conditioning_input(plan, mel)
    for k in reversed(range(config.n_flows)):
        flow = plan.flow(k)
        audio[-flow.channels :] = _flow(flow, audio[-flow.channels :], inputs)
    return audio.T.reshape(-1)


def _conditioning_input(plan: Plan, mel: Float64) -> Float64:
    """What the conditioning multiplies: mel taps [J*M, frames], or [M*G, steps]."""
    if plan.conditioning == "published":
        return upsampled(plan, mel)
    frames, last = mel.shape[1], plan.config.mel_taps - 1
    padded = np.pad(mel, ((0, 0), (last, 0)))
    return np.concatenate([padded[:, last - j : last - j + frames] for j in range(last + 1)])


def _condition(matrix: Float64, inputs: Float64) -> Float64:
    """[2C, steps] from one layer's matrix, in either form."""
    if matrix.ndim == 2:
        return np.asarray(matrix @ inputs)
    by_phase = np.einsum("opk,kf->ofp", matrix, inputs, optimize=True)
    return np.asarray(by_phase.reshape(matrix.shape[0], -1))


def _dilated(kernel: Float64, x: Float64, dilation: int) -> Float64:
    """A zero-padded dilated convolution: kernel [out, taps, in], x [in, steps]."""
    reach = kernel.shape[1] // 2 * dilation
    padded, steps = np.pad(x, ((0, 0), (reach, reach))), x.shape[1]
    shifts = range(0, 2 * reach + 1, dilation)
    parts = [kernel[:, j] @ padded[:, s : s + steps] for j, s in enumerate(shifts)]
    return np.asarray(sum(parts))


def _flow(flow: FlowPlan, audio: Float64, inputs: Float64) -> Float64:
    """One inverse flow on audio [n, steps]."""
    half = flow.channels // 2
    first, second = audio[:half], audio[half:]
    given, changed = (second, first) if flow.swapped else (first, second)
    x = np.concatenate([given, np.ones((1, audio.shape[1]))])
    stream = flow.start @ given + flow.start_bias[:, None]
    out = np.repeat(flow.output_bias[:, None], audio.shape[1], axis=1)
    channels = flow.start.shape[0]
    for i, kernel in enumerate(flow.gate):
        gate = _dilated(kernel, x, 2**i) + _condition(flow.conditioning[i], inputs)
        gate += flow.gate_bias[i][:, None]
        acts = np.tanh(gate[:channels]) / (1 + np.exp(-gate[channels:]))
        out += flow.output[i] @ acts
        if i < len(flow.gate) - 1:
            stream = stream + flow.residual[i] @ acts + flow.residual_bias[i][:, None]
            x = stream
    changed = (changed - out[:half]) * np.exp(-out[half:])
    halves = (changed, given) if flow.swapped else (given, changed)
    return np.asarray(flow.inverse @ np.concatenate(halves))
