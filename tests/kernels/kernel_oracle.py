"""What the kernel tests share: poisoned outputs, guarded inputs, the error that is allowed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GUARD = 256  # elements of NaN before and after
STORAGE = {"fp16": torch.float16, "bf16": torch.bfloat16}
TINY = {"fp16": 2e-5, "bf16": 2e-4, "tf32": 1e-5, "fp32": 3e-6}  # sums in another order
APPROXIMATION = 6e-4  # of tanh.approx.f32 in a gate of half precision


@dataclass(frozen=True, slots=True)
class Target:
    """Where and in which precision a kernel runs."""

    device: str
    products: str

    def __str__(self) -> str:
        return f"{self.device}-{self.products}"

    @property
    def dtype(self) -> torch.dtype:
        """Of streams and weights."""
        return STORAGE.get(self.products, torch.float32)

    def stored(self, values: Tensor) -> Tensor:
        """Values in the storage type on the device, NaN around them."""
        return guarded(values.to(self.dtype).to(self.device))

    def empty(self, *shape: int) -> Tensor:
        """An output of NaN with NaN around it."""
        return guarded(torch.full(shape, torch.nan, dtype=self.dtype, device=self.device))

    def floats(self, *shape: int) -> Tensor:
        """Standard normals in float32 on the device."""
        return guarded(torch.randn(shape).to(self.device))

    def result(self, values: Tensor) -> Tensor:
        """What a kernel of this precision stores of float32 values."""
        from fastglow.kernels.common import narrowed  # after conftest.py has chosen how Triton runs

        return narrowed(values, self.products)  # type: ignore[arg-type]

    def operand(self, values: Tensor) -> Tensor:
        """What a product of this precision sees of stored values."""
        if self.products != "tf32":
            return values
        bits = values.contiguous().view(torch.int32) & ~0x1FFF
        return bits.view(torch.float32)


def guarded(values: Tensor) -> Tensor:
    """A copy inside a buffer of NaN: what is read past it shows."""
    buffer = torch.full(
        (values.numel() + 2 * GUARD,), torch.nan, dtype=values.dtype, device=values.device
    )
    view = buffer[GUARD : GUARD + values.numel()].view(values.shape)
    view.copy_(values)
    return view


def check_guards(written: Tensor) -> None:
    """Nothing outside was written."""
    whole = torch.empty(0, dtype=written.dtype, device=written.device).set_(
        written.untyped_storage()
    )
    assert whole[:GUARD].isnan().all()
    assert whole[-GUARD:].isnan().all()


def check(found: Tensor, exact: Tensor, same: Tensor, tiny: float) -> None:
    """err(kernel) <= 2 err(reference in the same precision) + tiny, relative to the largest value.

    Args:
        found: The kernel's result.
        exact: The reference in float64.
        same: The reference in the kernel's precision.
        tiny: Allowed besides.
    """
    check_guards(found)
    assert found.isfinite().all()
    scale = max(1.0, float(exact.abs().max()))
    allowed = 2 * float((same.double() - exact).abs().max()) + tiny * scale
    assert float((found.double() - exact).abs().max()) <= allowed
