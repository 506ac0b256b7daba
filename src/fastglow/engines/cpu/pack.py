"""A flow's weights in float32, ordered as the machine code reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fastglow.engines.cpu.context import Layer
from fastglow.engines.cpu.products import Shape
from fastglow.plan import FlowPlan

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Real = TypeVar("Real", np.float32, np.float64)


@dataclass(frozen=True, slots=True)
class PackedFlow:
    """One flow, ready to run.

    Attributes:
        channels: Audio channels n.
        swapped: The second half conditions the first.
        output_rows: n, padded to whole groups.
        inverse: [n, n].
        table: [L, len(Layer)], addresses into ``arrays``.
        arrays: Everything that the table points to.
    """

    channels: int
    swapped: bool
    output_rows: int
    inverse: Float32
    table: Int64
    arrays: tuple[Float32, ...]


def padded(count: int, multiple: int) -> int:
    """``count`` rounded up to a multiple."""
    return -(-count // multiple) * multiple


def aligned(shape: tuple[int, ...]) -> Float32:
    """float32 zeros on a 64-byte boundary, so that no vector straddles two cache lines."""
    size = int(np.prod(shape))
    raw = np.zeros(size + 16, dtype=np.float32)
    offset = (-raw.ctypes.data % 64) // 4
    return raw[offset : offset + size].reshape(shape)


def pack_flow(flow: FlowPlan, shape: Shape) -> PackedFlow:
    """Pad channels to whole groups of rows, regroup, and round to float32."""
    layers, real = len(flow.gate), flow.start.shape[0]
    channels = padded(real, shape.rows)
    rows = padded(flow.channels, shape.rows)
    keep: list[Float32] = []
    table = np.zeros((layers, len(Layer)), dtype=np.int64)

    def put(layer: int, field: Layer, array: NDArray[np.float64] | Float32) -> None:
        packed = aligned(array.shape)
        packed[...] = array
        keep.append(packed)
        table[layer, field] = packed.ctypes.data

    for i in range(layers):
        put(i, Layer.TAPS, _gate_groups(_taps(flow.gate[i], channels, first=i == 0), shape))
        conditioning = _conditioning(flow.conditioning[i], shape)
        put(i, Layer.MEL, conditioning)
        table[i, Layer.MEL_PHASE] = conditioning[0].size if len(conditioning) > 1 else 0
        put(i, Layer.GATE_BIAS, _gate_groups(flow.gate_bias[i][:, None], shape))
        if i < layers - 1:
            bias = flow.residual_bias[i] + (flow.start_bias if i == 0 else 0)
            put(i, Layer.RESIDUAL, _groups(flow.residual[i], channels, channels, shape))
            put(i, Layer.RESIDUAL_BIAS, _groups(bias[:, None], channels, 1, shape))
            put(i, Layer.START, _groups(flow.start, channels, flow.start.shape[1], shape))
        put(i, Layer.OUTPUT, _groups(flow.output[i], rows, channels, shape))
        bias = flow.output_bias if i == layers - 1 else np.zeros(flow.channels)
        put(i, Layer.OUTPUT_BIAS, _groups(bias[:, None], rows, 1, shape))
    inverse = np.ascontiguousarray(flow.inverse, dtype=np.float32)
    return PackedFlow(flow.channels, flow.swapped, rows, inverse, table, tuple(keep))


def _taps(kernel: NDArray[np.float64], channels: int, *, first: bool) -> NDArray[np.float64]:
    """[2C, K] in the order of the packed inputs: taps of channels, then taps of ones."""
    out, taps, inputs = kernel.shape
    if first:
        given, ones = kernel[:, :, : inputs - 1], kernel[:, :, inputs - 1]
        return np.concatenate([given.reshape(out, -1), ones], axis=1)
    wide = np.zeros((out, taps, channels))
    wide[:, :, :inputs] = kernel
    return wide.reshape(out, -1)


def _groups(
    matrix: NDArray[np.float64], rows: int, columns: int, shape: Shape
) -> NDArray[np.float64]:
    """[out, K] to [groups, K, rows of a group], zero-padded."""
    wide = np.zeros((rows, columns))
    wide[: matrix.shape[0], : matrix.shape[1]] = matrix
    return wide.reshape(-1, shape.rows, columns).transpose(0, 2, 1)


def _gate_groups(matrix: NDArray[np.float64], shape: Shape) -> NDArray[np.float64]:
    """[2C, K] to groups whose first half are tanh rows, the second half their sigmoids."""
    grouped = _pair_rows(matrix, shape)
    return grouped.transpose(0, 2, 1)


def _pair_rows(matrix: NDArray[Real], shape: Shape) -> NDArray[Real]:
    """[2C, K] to [groups, rows of a group, K]."""
    real, pairs = matrix.shape[0] // 2, shape.rows // 2
    channels = padded(real, shape.rows)
    wide = np.zeros((2, channels, matrix.shape[1]), dtype=matrix.dtype)
    wide[:, :real] = matrix.reshape(2, real, -1)
    groups = wide.reshape(2, -1, pairs, matrix.shape[1]).transpose(1, 0, 2, 3)
    return groups.reshape(-1, shape.rows, matrix.shape[1])


def _conditioning(matrix: NDArray[np.float64], shape: Shape) -> Float32:
    """[2C, P, K] or [2C, K] to [P or 1, groups, K, rows of a group]."""
    rows, width = matrix.shape[0], matrix.shape[-1]
    phases = 1 if matrix.ndim == 2 else matrix.shape[1]
    narrow = matrix.reshape(rows, -1).astype(np.float32)
    grouped = _pair_rows(narrow, shape).reshape(-1, shape.rows, phases, width)
    return grouped.transpose(2, 0, 3, 1)
