"""How the tensor copy engine of sm_90 cuts boxes out of tensors of 16-bit numbers."""

from __future__ import annotations

import ctypes

import torch
from cuda.bindings import driver

from fastglow.kernels.nvrtc import checked


def tensor_map(
    address: int,
    sizes: tuple[int, ...],
    strides: tuple[int, ...],
    box: tuple[int, ...],
    *,
    bf16: bool,
    swizzled: bool = True,
) -> bytes:
    """How the tensor copy engine cuts boxes out of a tensor of 16-bit numbers.

    Outside the tensor a box reads zeros and writes nothing.

    Args:
        address: Of the first number, on the device.
        sizes: Innermost first.
        strides: Bytes between neighbours of every axis but the innermost; rows may overlap.
        box: Numbers along every axis.
        bf16: bfloat16 rather than float16.
        swizzled: Rows of 128 bytes are swizzled in shared memory as wgmma wants them.
    """
    kinds, swizzles = driver.CUtensorMapDataType, driver.CUtensorMapSwizzle
    kind = kinds.CU_TENSOR_MAP_DATA_TYPE_FLOAT16
    if bf16:
        kind = kinds.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
    made = checked(
        driver.cuTensorMapEncodeTiled(
            kind,
            len(sizes),
            address,
            [driver.cuuint64_t(size) for size in sizes],
            [driver.cuuint64_t(stride) for stride in strides],
            [driver.cuuint32_t(length) for length in box],
            [driver.cuuint32_t(1) for _ in box],
            driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzles.CU_TENSOR_MAP_SWIZZLE_128B
            if swizzled
            else swizzles.CU_TENSOR_MAP_SWIZZLE_NONE,
            driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    )
    return ctypes.string_at(int(made.getPtr()), 128)


def matrix_map(tensor: torch.Tensor, rows: int, *, bf16: bool, planes: bool = False) -> bytes:
    """Boxes of 64 columns by ``rows`` rows of a tensor, of one plane if it has planes."""
    columns = tensor.shape[-1]
    size, stride = tensor.numel() // columns, 2 * columns
    if not planes:
        return tensor_map(tensor.data_ptr(), (columns, size), (stride,), (64, rows), bf16=bf16)
    count, places, _ = tensor.shape
    sizes, strides = (columns, places, count), (stride, stride * places)
    return tensor_map(tensor.data_ptr(), sizes, strides, (64, rows, 1), bf16=bf16)


def mel_map(
    mel: torch.Tensor,
    strides: tuple[int, int],
    size: tuple[int, int, int],
    rows: int,
    *,
    bf16: bool,
) -> bytes:
    """Boxes of 64 columns by ``rows`` windows of a flat mel.

    Args:
        mel: Flat; row (p, n) starts at p * strides[0] + n * strides[1].
        strides: In numbers, multiples of 8; without a phase stride all phases read the same.
        size: (P, N, K): phases, places, numbers of a window.
        rows: Of a box.
        bf16: bfloat16 rather than float16.
    """
    (phase_stride, row_stride), (phases, places, k) = strides, size
    return tensor_map(
        mel.data_ptr(),
        (k, places, phases if phase_stride else 1),
        (2 * row_stride, 2 * (phase_stride or places * row_stride)),
        (64, rows, 1),
        bf16=bf16,
    )
