"""A flow's weights in the engine's precision, ordered as the machine code reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fastglow.engines.base import padded
from fastglow.engines.cpu.context import Layer
from fastglow.engines.cpu.ir import Shape
from fastglow.plan import FlowPlan

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Real = TypeVar("Real", np.float32, np.float64)


@dataclass(frozen=True, slots=True)
class PackedFlow:
    """One flow, ready to run.

    Attributes:
        channels: Audio channels n.
        swapped: The second half conditions the first.
        output_rows: n, padded to whole groups.
        inverse: [n, n] float32.
        table: [L, len(Layer)], addresses into ``arrays``.
        arrays: Everything that the table points to.
    """

    channels: int
    swapped: bool
    output_rows: int
    inverse: Float32
    table: Int64
    arrays: tuple[Float32, ...]

    def rows_of(self, plane: Float32) -> Float32:
        """This flow's output rows [P, rows, pitch] within a buffer for those of any flow."""
        phases, _, pitch = plane.shape
        flat = plane.reshape(-1)[: phases * self.output_rows * pitch]
        return flat.reshape(phases, self.output_rows, pitch)


def aligned(shape: tuple[int, ...]) -> Float32:
    """float32 zeros on a 64-byte boundary, so that no vector straddles two cache lines."""
    size = int(np.prod(shape))
    raw = np.zeros(size + 16, dtype=np.float32)
    offset = (-raw.ctypes.data % 64) // 4
    return raw[offset : offset + size].reshape(shape)


def pack_flow(flow: FlowPlan, inputs: int, shape: Shape) -> PackedFlow:
    """Pad channels to whole groups of rows, regroup, and round.

    Args:
        flow: The plan.
        inputs: Rows of the conditioning input: M, or M*G in the published form.
        shape: The register tile.
    """
    layers, real = len(flow.gate), flow.start.shape[0]
    channels = padded(real, shape.rows)
    rows = padded(flow.channels, shape.rows)
    keep: list[Float32] = []
    table = np.zeros((layers, len(Layer)), dtype=np.int64)

    def put(layer: int, field: Layer, array: Float32) -> None:
        packed = aligned(array.shape)
        packed[...] = array
        keep.append(packed)
        table[layer, field] = packed.ctypes.data

    for i in range(layers):
        taps = _gate_rows(_taps(flow.gate[i], channels, i, shape), shape)
        put(i, Layer.TAPS, _weights(taps, shape if i else shape.audio))
        put(i, Layer.GATE_BIAS, _gate_rows(flow.gate_bias[i][:, None], shape).astype(np.float32))
        conditioning = _conditioning(flow.conditioning[i], inputs, shape)
        put(i, Layer.MEL, conditioning)
        table[i, Layer.MEL_PHASE] = conditioning[0].size if len(conditioning) > 1 else 0
        if i < layers - 1:
            bias = flow.residual_bias[i] + (flow.start_bias if i == 0 else 0)
            residual = _rows(flow.residual[i], channels, channels, shape)
            put(i, Layer.RESIDUAL, _weights(residual, shape))
            put(i, Layer.RESIDUAL_BIAS, _bias(bias, channels))
            given = padded(flow.start.shape[1], shape.audio.depth)
            start = _rows(flow.start, channels, given, shape)
            put(i, Layer.START, _weights(start, shape.audio))
        put(i, Layer.OUTPUT, _weights(_rows(flow.output[i], rows, channels, shape), shape))
        bias = flow.output_bias if i == layers - 1 else np.zeros(flow.channels)
        put(i, Layer.OUTPUT_BIAS, _bias(bias, rows))
    inverse = np.ascontiguousarray(flow.inverse, dtype=np.float32)
    return PackedFlow(flow.channels, flow.swapped, rows, inverse, table, tuple(keep))


def bfloat16_pairs(values: Float32) -> Float32:
    """[..., K, rows] to [..., K/2, rows]: two values rounded to bfloat16 in each 32-bit number."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16  # to nearest even
    even, odd = rounded[..., 0::2, :], rounded[..., 1::2, :]
    return (even | (odd << 16)).astype(np.uint32).view(np.float32)


def signed_bytes(grouped: NDArray[np.floating]) -> Float32:
    """[..., rows, K] to [..., K / 4 + SIDE, rows]: four values in each 32-bit number.

    After them stand the rows' scales and the sums of their rounded values.
    """
    scale = np.maximum(np.abs(grouped).max(axis=-1, keepdims=True), 1e-30) / 127
    levels = np.rint(grouped / scale)
    fours = np.ascontiguousarray(levels.astype(np.int8)).view(np.float32)  # little-endian
    side = np.concatenate([scale, levels.sum(axis=-1, keepdims=True)], axis=-1)
    return np.moveaxis(np.concatenate([fours, side.astype(np.float32)], axis=-1), -1, -2)


def _weights(grouped: NDArray[np.floating], shape: Shape) -> Float32:
    """[..., rows of a group, K] to [..., K, rows] in the engine's precision."""
    if shape.depth == 4:
        return signed_bytes(grouped)
    turned = np.moveaxis(grouped.astype(np.float32, copy=False), -1, -2)
    return bfloat16_pairs(turned) if shape.depth == 2 else turned


def _bias(bias: Float64, rows: int) -> Float32:
    return np.pad(bias, (0, rows - len(bias))).astype(np.float32)


def _taps(kernel: Float64, channels: int, layer: int, shape: Shape) -> Float64:
    """[2C, K] in the order of the packed inputs: taps of channels, then taps of ones."""
    out, taps, inputs = kernel.shape
    if layer > 0:
        wide = np.zeros((out, taps, channels))
        wide[:, :, :inputs] = kernel
        return wide.reshape(out, -1)
    depth = shape.audio.depth
    given = np.zeros((out, taps, padded(inputs - 1, depth)))
    given[:, :, : inputs - 1] = kernel[:, :, : inputs - 1]
    ones = np.zeros((out, taps, depth))
    ones[:, :, 0] = kernel[:, :, inputs - 1]
    return np.concatenate([given.reshape(out, -1), ones.reshape(out, -1)], axis=1)


def _rows(matrix: Float64, rows: int, columns: int, shape: Shape) -> Float64:
    """[out, K] to [groups, rows of a group, K], zero-padded."""
    wide = np.zeros((rows, columns))
    wide[: matrix.shape[0], : matrix.shape[1]] = matrix
    return wide.reshape(-1, shape.rows, columns)


def _gate_rows(matrix: NDArray[Real], shape: Shape) -> NDArray[Real]:
    """[2C, K] to [groups, rows of a group, K]: first tanh rows, then their sigmoids."""
    real, pairs = matrix.shape[0] // 2, shape.rows // 2
    channels = padded(real, shape.rows)
    wide = np.zeros((2, channels, matrix.shape[1]), dtype=matrix.dtype)
    wide[:, :real] = matrix.reshape(2, real, -1)
    groups = wide.reshape(2, -1, pairs, matrix.shape[1]).transpose(1, 0, 2, 3)
    return groups.reshape(-1, shape.rows, matrix.shape[1])


def _conditioning(matrix: Float64, inputs: int, shape: Shape) -> Float32:
    """[2C, P, J*inputs] or [2C, inputs] to [P or 1, groups, K, rows of a group]."""
    rows, width = matrix.shape[0], matrix.shape[-1]
    phases = 1 if matrix.ndim == 2 else matrix.shape[1]
    narrow = matrix.reshape(rows, phases, width // inputs, inputs).astype(np.float32)
    odd = padded(inputs, shape.depth) - inputs
    narrow = np.pad(narrow, ((0, 0), (0, 0), (0, 0), (0, odd))) if odd else narrow
    grouped = _gate_rows(narrow.reshape(rows, -1), shape)
    by_phase = grouped.reshape(*grouped.shape[:2], phases, -1).transpose(2, 0, 1, 3)
    return _weights(by_phase, shape)
