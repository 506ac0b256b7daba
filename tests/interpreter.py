"""Triton's interpreter with the products of a GPU: in the order of K, and bf16 understood."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def install() -> None:
    """Replace the interpreter's ``tl.dot`` and its rounding to bf16.

    Its product is numpy's, whose order of summation depends on an element's place in the tile, so
    that a row's bits would depend on its neighbours; and it takes the bits of bf16 for integers.
    It cuts bf16 off where GPUs round to the nearest.
    """
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    cast = builder.cast_impl

    def create_dot(
        self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any
    ) -> Any:
        left, right, total = _values(a), _values(b), d.data.copy()
        for k in range(left.shape[1]):
            total += left[:, k : k + 1] * right[k : k + 1]
        return interpreter.TensorHandle(total, d.dtype.scalar)

    def cast_impl(self: Any, source: Any, kind: Any) -> Any:
        if (source.dtype.scalar.name, kind.scalar.name) != ("fp32", "bf16"):
            return cast(self, source, kind)
        bits = source.data.view(np.uint32)
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16
        return interpreter.TensorHandle(rounded.astype(np.uint16), kind.scalar)

    builder.create_dot, builder.cast_impl = create_dot, cast_impl


def _values(operand: Any) -> NDArray[np.float32]:
    if operand.dtype.scalar.name == "bf16":
        return (operand.data.astype(np.uint32) << 16).view(np.float32)
    values: NDArray[np.float32] = operand.data.astype(np.float32)
    return values
