# mypy: ignore-errors
"""What the kernels share: devices, the precisions of products, the functions of the gate."""

from __future__ import annotations

from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

Products = Literal["fp16", "bf16", "tf32", "fp32"]
STORAGE = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "tf32": torch.float32,
    "fp32": torch.float32,
}
DOT = {"fp16": "ieee", "bf16": "ieee", "tf32": "tf32", "fp32": "tf32x3"}  # tl.dot input_precision


def narrowed(values: Tensor, products: Products) -> Tensor:
    """Values in the storage type of a precision; for tf32 rounded to what its products read."""
    out = values.to(STORAGE[products])
    if products == "tf32":  # to nearest, ties away from zero, as cvt.rna does
        out = (out.contiguous().view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32)
    return out


ON_CPU = 0  # the capability of Triton's interpreter


def capability(x: Tensor) -> int:
    """The compute capability of a tensor's device as one number, 90 for 9.0; 0 on the CPU."""
    if not x.is_cuda:
        return ON_CPU
    major, minor = torch.cuda.get_device_capability(x.device)
    return 10 * major + minor


def shared_memory(capability: int) -> int:
    """Bytes of shared memory that one block may use."""
    data_centre = {80: 163, 87: 163, 90: 227, 100: 227, 101: 227, 103: 227, 110: 227}
    return 1024 * data_centre.get(capability, 99)


@triton.jit
def stored(x, TF32: tl.constexpr):
    """What is stored of float32 ``x``: tf32 products cut 13 bits off, so they are rounded first.

    Cut operands are all too small: 1.8e-3 of error in 256 channels, seven times PyTorch's tf32.
    """
    if TF32:
        bits = tl.inline_asm_elementwise(
            "cvt.rna.tf32.f32 $0, $1;", "=r,r", [x.to(tl.int32, bitcast=True)], dtype=tl.int32,
            is_pure=True, pack=1,
        )  # fmt: skip
        x = bits.to(tl.float32, bitcast=True)
    return x


@triton.jit
def tanh_approx(x):
    """One special-function operation, 2**-11 relative error: as good as fp16 can hold."""
    return tl.inline_asm_elementwise(
        "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def tanh(x):
    """Hyperbolic tangent to 2e-7 relative: an odd polynomial up to 0.6, exponentials beyond."""
    u = x * x
    p = u * -0.005905786994844675 + 0.02080531045794487
    p = p * u - 0.053786661475896835
    p = p * u + 0.13331958651542664
    p = p * u - 0.33333298563957214
    near = x * u * p + x
    far = 1.0 - 2.0 / (tl.exp(2.0 * tl.abs(x)) + 1.0)
    return tl.where(u < 0.36, near, tl.where(x < 0.0, -far, far))


@triton.jit
def gated(t, s, APPROXIMATE: tl.constexpr):
    """tanh(t) * sigmoid(s)."""
    if APPROXIMATE:
        return tanh_approx(t) * (0.5 * tanh_approx(0.5 * s) + 0.5)
    else:
        return tanh(t) / (1.0 + tl.exp(-s))
