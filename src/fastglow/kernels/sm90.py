"""What the two kernels in CUDA C++ for sm_90 have in common: limits, their sources, a launch."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Protocol

import torch

from fastglow.kernels.nvrtc import Kernel

ARCHITECTURE = "sm_90a"
SHARED = 232_448  # bytes a block may have
THREADS = 384


def tiles_of(channels: int) -> int:
    """MT, 64-row tiles of the gate that a warpgroup holds."""
    return 2 if channels % 128 == 0 else 1


class Tiled(Protocol):
    """What their shapes have in common: see :class:`fastglow.kernels.hopper.Shape`."""

    @property
    def channels(self) -> int: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def bf16(self) -> bool: ...  # noqa: D102
    @property
    def tiles(self) -> int: ...  # noqa: D102
    @property
    def blocks(self) -> int: ...  # noqa: D102


def assembled(shape: Tiled, defines: Mapping[str, int], sources: Sequence[str]) -> str:
    """Files of CUDA C++ behind the defines and the products of a shape."""
    kind = "bf16" if shape.bf16 else "f16"
    common = {
        "C": shape.channels,
        "CL": shape.blocks,
        "MT": shape.tiles,
        "NT": shape.width,
        "BF16": int(shape.bf16),
        "KIND": f'"{kind}"',
    }
    folder = resources.files("fastglow.kernels")
    rest = shape.width if shape.tiles == 2 else shape.width // 2
    return "\n".join(
        [f"#define {name} {value}" for name, value in {**common, **defines}.items()]
        + [_wgmma("gate", shape.width, kind), _wgmma("residual", rest, kind)]
        + [(folder / name).read_text() for name in sources]
    )


def _wgmma(name: str, width: int, kind: str) -> str:
    """64 x 16 by 16 x width in C++: the instruction names every one of its registers."""
    count = width // 2
    names = ", ".join(f"%{i}" for i in range(count))
    registers = ", ".join(f'"+f"(d[{i}])' for i in range(count))
    instruction = f"wgmma.mma_async.sync.aligned.m64n{width}k16.f32.{kind}.{kind}"
    return f"""
__device__ __forceinline__ void mma_{name}(float (&d)[{count}],
                                           unsigned long long a, unsigned long long b) {{
  asm volatile("{instruction} {{{names}}}, %{count}, %{count + 1}, 1, 1, 1, 0, 0;"
               : {registers} : "l"(a), "l"(b));
}}
__device__ __forceinline__ void mma_wait_{name}(float (&d)[{count}]) {{
  asm volatile("wgmma.wait_group.sync.aligned 0;" : {registers} :: "memory");
}}
"""


class Launch:
    """One launch, ready to be repeated; it keeps its tensors alive."""

    def __init__(self, kernel: Kernel, clusters: int, argument: bytes, tensors: Any) -> None:
        """Keep the argument, padded to the alignment of a tensor map."""
        self._kernel, self._clusters, self._tensors = kernel, clusters, tensors
        size = -(-len(argument) // 64) * 64
        self._argument = ctypes.create_string_buffer(argument, size)

    def __call__(self) -> None:
        """Run it on PyTorch's current stream."""
        stream = torch.cuda.current_stream().cuda_stream
        self._kernel.launch(self._clusters, self._argument, stream)
