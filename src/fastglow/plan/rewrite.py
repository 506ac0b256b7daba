"""The algebra of the rewriting: linear maps that follow one another become one map.

Every function returns float64 and is exact up to float64 rounding (1e-15 relative).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastglow.checkpoint.weights import Weights
from fastglow.errors import CheckpointError

Float64 = NDArray[np.float64]


def upsampling(weights: Weights) -> Float64:
    """The transposed convolution and the squeeze as one matrix a phase.

    Output row (o, q) at step P*f + p is the sum over taps j and bands m of
    upsample[m, o, hop*j + G*p + q] * mel[m, f - j].

    Returns:
        [M*G, P, J*M]; rows ordered as ``cond_layer`` reads them (band, then sample).

    Raises:
        CheckpointError: The hop is no multiple of n_group.
    """
    config = weights.config
    if not config.has_phases:
        raise CheckpointError(
            f"the hop ({config.hop_length}) is no multiple of n_group ({config.n_group})"
        )
    kernel = weights["upsample.weight"]  # [m, o, kernel]
    bands, hop = config.n_mel_channels, config.hop_length
    taps = config.mel_taps
    padded = np.zeros((bands, bands, taps * hop))
    padded[:, :, : config.upsample_kernel] = kernel
    split = padded.reshape(bands, bands, taps, config.phases, config.n_group)
    moved = split.transpose(1, 4, 3, 2, 0)  # [o, q, p, j, m]
    return moved.reshape(bands * config.n_group, config.phases, taps * bands)


def conditioning(weights: Weights, flow: int, phases: Float64 | None) -> Float64:
    """``cond_layer`` alone [L, 2C, M*G], or composed with the upsampling [L, 2C, P, J*M]."""
    wn = weights.config.wn
    cond = weights[f"WN.{flow}.cond_layer.weight"][:, :, 0]
    if phases is None:
        return cond.reshape(wn.n_layers, 2 * wn.n_channels, -1)
    composed = cond @ phases.reshape(phases.shape[0], -1)
    return composed.reshape(wn.n_layers, 2 * wn.n_channels, *phases.shape[1:])


def gates(weights: Weights, flow: int, start: Float64, start_bias: Float64) -> tuple[Float64, ...]:
    """Dilated kernels [2C, kernel, inputs]; layer 0 composed with ``start``.

    The bias of ``start`` becomes the weight of a channel of ones, because the zero padding of
    the convolution follows ``start``: past the edges the bias must be absent too.
    """
    first = weights[f"WN.{flow}.in_layers.0.weight"].transpose(0, 2, 1)  # [2C, kernel, C]
    with_ones = np.concatenate([start, start_bias[:, None]], axis=1)  # [C, h + 1]
    rest = (
        weights[f"WN.{flow}.in_layers.{i}.weight"].transpose(0, 2, 1)
        for i in range(1, weights.config.wn.n_layers)
    )
    return (first @ with_ones, *rest)


def gate_bias(weights: Weights, flow: int) -> Float64:
    """[L, 2C]: biases of ``in_layers`` and ``cond_layer``, and the upsampling's through it."""
    wn, config = weights.config.wn, weights.config
    constant = np.repeat(weights["upsample.bias"], config.n_group)
    cond = weights[f"WN.{flow}.cond_layer.weight"][:, :, 0] @ constant
    total = (cond + weights[f"WN.{flow}.cond_layer.bias"]).reshape(wn.n_layers, -1)
    own = [weights[f"WN.{flow}.in_layers.{i}.bias"] for i in range(wn.n_layers)]
    return np.asarray(total + np.stack(own))


def residual(weights: Weights, flow: int) -> tuple[Float64, Float64]:
    """The residual half of ``res_skip_layers``: [L-1, C, C] and [L-1, C]."""
    c, layers = weights.config.wn.n_channels, weights.config.wn.n_layers
    matrix, bias = np.zeros((layers - 1, c, c)), np.zeros((layers - 1, c))
    for i in range(layers - 1):
        matrix[i] = weights[f"WN.{flow}.res_skip_layers.{i}.weight"][:c, :, 0]
        bias[i] = weights[f"WN.{flow}.res_skip_layers.{i}.bias"][:c]
    return matrix, bias


def output(weights: Weights, flow: int) -> tuple[Float64, Float64]:
    """The skip path through ``end``: [L, n, C] and [n]; nothing non-linear stands between."""
    c = weights.config.wn.n_channels
    end = weights[f"WN.{flow}.end.weight"][:, :, 0]
    bias = weights[f"WN.{flow}.end.bias"].copy()
    rows = []
    for i in range(weights.config.wn.n_layers):
        skip = weights[f"WN.{flow}.res_skip_layers.{i}.weight"][-c:, :, 0]
        rows.append(end @ skip)
        bias += end @ weights[f"WN.{flow}.res_skip_layers.{i}.bias"][-c:]
    return np.stack(rows), bias
