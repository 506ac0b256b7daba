"""One WN layer in one launch, for NVIDIA's sm_90 (H100, H200): CUDA C++ in hopper.cu.

*What is fused.* The gate (dilated taps and mel window), tanh * sigmoid, the residual product, and
the output rows. Of a layer only x is read and x_next written, with 32 bytes a step of output sums.

*The work of a block.* 64 MT channels of a tile of NT places of one phase. Gate rows are the M of
wgmma (64 rows are 8 tanh and 8 sigmoid rows of each of four warps, so both halves of a gate meet in
one thread), places its N, so a tile may have any multiple of 16 places: 860 frames make 6 tiles of
144. One warp loads with the tensor copy engine, two warpgroups multiply, one warp stores.

*Clusters.* CL blocks share a tile's channels: each loads 1/CL of the inputs and sends it to all.
Their activations meet in a scratch buffer in the L2 cache, and the residual product of a tile runs
after the gate of the next, when its partners' activations have long arrived. A block may be one
gate ahead of its partners' residual, hence SLOTS = 4 places for a cluster's activations. Where
every block has a single tile, two blocks exchange through shared memory instead. (hopper_flow.py
takes the shortest of these inputs.)

*Early start.* A launch begins while the one before it ends: the mel's steps come first, because
they wait for no other layer.

*Why not Triton.* Triton has neither clusters nor widths that are not powers of two. 256 channels,
6,912 places of 32 phases, one run on an H100: 493 us a layer, against 467 + 253 us of Triton's two
kernels.

*Floor.* 256 channels, 27,520 steps: 34.4 GFLOP, 46 us at the 742 TFLOP/s of a large cuBLAS product;
this takes 58.

*Determinism.* Every element adds its products in one order (the mel's, the middle tap's, which
hopper_flow.py has before the others, the other taps'), through one kind of instruction, whatever
NT; each block keeps its own partial sums of the output rows.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass

import torch

from fastglow.kernels.boxes import matrix_map, mel_map
from fastglow.kernels.nvrtc import Kernel, compile_cubin
from fastglow.kernels.sm90 import ARCHITECTURE, SHARED, THREADS, Launch, assembled, tiles_of

CHANNELS = (64, 128, 256, 512)  # published sizes; 320, say, divides no width into its 5 blocks
SOURCES = ("hopper.cuh", "hopper_move.cuh", "hopper.cu")
SLOTS = 4
WIDTHS = {1: (96, 128, 192, 256), 2: (96, 128, 144, 160, 176, 192)}  # places a tile, by MT
OVERHEAD = 29  # a tile costs as much as so many more places: fitted to six widths, 6,912 places


@dataclass(frozen=True, slots=True)
class Shape:
    """How one width of the kernel is compiled.

    Attributes:
        channels: C.
        width: NT, places a tile.
        bf16: bfloat16 rather than float16.
    """

    channels: int
    width: int
    bf16: bool

    @property
    def tiles(self) -> int:
        """MT."""
        return tiles_of(self.channels)

    @property
    def blocks(self) -> int:
        """CL, blocks that share a tile's channels."""
        return self.channels // (64 * self.tiles)

    @property
    def stages(self) -> int:
        """Of the ring: as many as fit."""
        return (SHARED - 2048) // self.stage_bytes

    @property
    def stage_bytes(self) -> int:
        """64 columns of the gate's rows and of the tile."""
        return (128 * self.tiles + self.width) * 128

    @property
    def shared_bytes(self) -> int:
        """With room to align the ring."""
        return self.stages * self.stage_bytes + 1024


def supported(channels: int, output_rows: int, capability: tuple[int, int]) -> bool:
    """Whether there is such a kernel for a model's padded channels and a device."""
    return capability == (9, 0) and output_rows == 8 and channels in CHANNELS


def source(shape: Shape) -> str:
    """The CUDA C++ of one shape."""
    return assembled(shape, {"STAGES": shape.stages}, SOURCES)


@functools.lru_cache(maxsize=64)
def _kernel(shape: Shape, device: int) -> Kernel:
    with torch.cuda.device(device):
        torch.cuda.current_stream()  # the driver's calls need PyTorch's context
        cubin = compile_cubin(source(shape), ARCHITECTURE)
        return Kernel(
            cubin, "layer", threads=THREADS, cluster=shape.blocks, shared=shape.shared_bytes
        )


class FusedLayer:
    """The kernel for one model on one device.

    Attributes:
        partials: Partial sums of the output rows, the first axis of ``out``.
    """

    def __init__(self, channels: int, dtype: torch.dtype, device: torch.device) -> None:
        """Compile every width, or load it from the cache.

        Args:
            channels: C, a multiple of 64.
            dtype: torch.float16 or torch.bfloat16.
            device: Of compute capability 9.0.
        """
        index = torch.cuda.current_device() if device.index is None else device.index
        self._bf16 = dtype == torch.bfloat16
        mt = Shape(channels, 96, self._bf16).tiles
        shapes = [Shape(channels, width, self._bf16) for width in WIDTHS[mt]]
        shapes = [shape for shape in shapes if shape.width % (4 * shape.blocks) == 0]
        self._kernels = {shape: _kernel(shape, index) for shape in shapes}
        self.partials = shapes[0].blocks
        rows = max(k.clusters * SLOTS * shape.width for shape, k in self._kernels.items())
        self._acts = torch.zeros((rows, channels), dtype=dtype, device=device)

    def shape(self, phases: int, places: int) -> Shape:
        """The width that should be fastest for so many places: the bits are the same in all."""

        def cost(shape: Shape) -> int:
            tiles = phases * -(-places // shape.width)
            waves = -(-tiles // self._kernels[shape].clusters)
            return waves * (OVERHEAD + shape.width)

        return min(self._kernels, key=cost)

    def prepare(
        self,
        *,
        x: torch.Tensor,
        x_next: torch.Tensor,
        weight: torch.Tensor,
        cond: torch.Tensor,
        mel: torch.Tensor,
        mel_strides: tuple[int, int],
        bias: torch.Tensor,
        residual: torch.Tensor,
        residual_bias: torch.Tensor,
        start: torch.Tensor,
        output: torch.Tensor,
        bits: torch.Tensor,
        out: torch.Tensor,
        dilation: int,
        first: bool,
        last: bool,
        shape: Shape | None = None,
    ) -> Launch:
        """Everything about one launch but the stream.

        Args:
            x: [P, N, X] the layer's input, ``given`` for the first; N is a multiple of 8.
            x_next: [P, N, C]; not written by the last layer.
            weight: [2C, taps * X], rows in groups of 8 tanh and 8 sigmoid.
            cond: [P or 1, 2C, K].
            mel: Flat; row (p, n) starts at p * mel_strides[0] + n * mel_strides[1], K long.
            mel_strides: In numbers, multiples of 8.
            bias: [2C] float32, rows as those of ``weight``.
            residual: [C, C].
            residual_bias: [C] float32.
            start: [C, X of the first layer].
            output: [8, C].
            bits: [N / 8] uint8, bit i of byte j set if place 8j + i is inside a row.
            out: [partials, P, 8, N] float32.
            dilation: Steps between taps.
            first: Layer 0: ``out`` is stored, not added to; x_0 = start . given.
            last: No residual.
            shape: A width other than the one that should be fastest.
        """
        shape = shape or self.shape(x.shape[0], x.shape[1])
        phases, places, inputs = x.shape
        c, mt, nt, k = shape.channels, shape.tiles, shape.width, cond.shape[2]
        part = nt // shape.blocks
        windows = mel_map(mel, mel_strides, (phases, places, k), part, bf16=self._bf16)
        boxes = functools.partial(matrix_map, bf16=self._bf16)
        maps = (
            boxes(weight, 128 * mt),
            boxes(cond, 128 * mt),
            boxes(residual, 64 * mt),
            boxes(start, 64 * mt),
            boxes(x, part, planes=True),
            boxes(x, nt, planes=True),
            windows,
            boxes(self._acts, part),
            boxes(self._acts, nt),
            boxes(x_next, nt, planes=True),
        )
        blocks = -(-places // nt)
        pointers = (bias, residual_bias, bits, output, out)
        numbers = (
            places,
            phases,
            blocks,
            weight.shape[1] // inputs,
            inputs // 64,
            k // 64,
            dilation,
            2 * c if cond.shape[0] > 1 else 0,
            1 if mel_strides[0] else 0,
            int(first),
            int(last),
        )
        tail = struct.pack("<5Q11i", *(t.data_ptr() for t in pointers), *numbers)
        kernel = self._kernels[shape]
        clusters = min(kernel.clusters, phases * blocks)
        tensors = (x, x_next, weight, cond, mel, residual, start, *pointers, self._acts)
        return Launch(kernel, clusters, b"".join(maps) + tail, tensors)
