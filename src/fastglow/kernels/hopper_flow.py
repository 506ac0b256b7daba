"""All layers of a flow in one launch, for short inputs on NVIDIA's sm_90: CUDA C++ beside this.

*Why.* A second of audio is one tile of each of 32 phases. With a launch a layer (hopper.py), 64 of
132 multiprocessors multiply while the others hold the next layer's blocks, and every layer waits
for the end of all blocks of the one before it: 13.3 us a layer at 256 channels.

*The work of a block.* 64 channels of a tile of NT places: 128 rows of the gate, 64 of the residual.
Two warpgroups multiply; one warp loads weights, which wait for nothing and so run ahead into the
next layer; one loads what they multiply; one stores.

*How blocks wait for one another.* A block counts up its tile's flag when its x is stored; a tap
waits for the flag of the tile that it reads, and not for the whole layer. Activations go the same
way between the blocks of a tile. Every layer has its own x, so that none is overwritten while
another block still reads it. All blocks must run at once, so the launch is cooperative.

*Determinism.* The bits are those of hopper.py: every element adds its products in the order of K,
and partial sums of the output rows are of the same channels.

*Floor.* 256 channels, 96 places of 32 phases: 3.8 GFLOP a layer, 5.2 us at 742 TFLOP/s.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import torch
from torch import Tensor

from fastglow.kernels.boxes import matrix_map, mel_map
from fastglow.kernels.hopper import ARCHITECTURE, SHARED, THREADS, Launch, wgmma
from fastglow.kernels.nvrtc import Kernel, compile_cubin

CHANNELS = (64, 128, 256)  # 512 would take 256 blocks
SOURCES = ("hopper.cuh", "hopper_flow.cu")
WIDTHS = (32, 64, 96, 128, 192)  # places a tile
A_BYTES = 128 * 128  # a stage of weights: 64 columns of the gate's rows


@dataclass(frozen=True, slots=True)
class FlowShape:
    """How one width of the kernel is compiled.

    Attributes:
        channels: C.
        width: NT, places a tile.
        layers: Of the flow.
        bf16: bfloat16 rather than float16.
    """

    channels: int
    width: int
    layers: int
    bf16: bool

    @property
    def ranks(self) -> int:
        """Blocks that share a tile's channels."""
        return self.channels // 64

    @property
    def b_stages(self) -> int:
        """Of what is multiplied; layer 0's residual takes ranks of them at once."""
        return 6 if self.width <= 96 else 5 if self.width <= 128 else 4

    @property
    def a_stages(self) -> int:
        """Of weights: as many as fit, so that they come early."""
        inputs = (self.b_stages + 2) * self.width * 128
        return min(12, (SHARED - 2048 - inputs) // A_BYTES)

    @property
    def shared_bytes(self) -> int:
        """With room to align the rings."""
        return self.a_stages * A_BYTES + (self.b_stages + 2) * self.width * 128 + 1024


def source(shape: FlowShape) -> str:
    """The CUDA C++ of one shape."""
    kind = "bf16" if shape.bf16 else "f16"
    defines = {
        "C": shape.channels,
        "CL": 1,
        "RANKS": shape.ranks,
        "PAIR": min(2, shape.ranks),
        "NT": shape.width,
        "A_STAGES": shape.a_stages,
        "B_STAGES": shape.b_stages,
        "LAYERS": shape.layers,
        "BF16": int(shape.bf16),
        "KIND": f'"{kind}"',
    }
    folder = resources.files("fastglow.kernels")
    return "\n".join(
        [f"#define {name} {value}" for name, value in defines.items()]
        + [wgmma("gate", shape.width, kind), wgmma("residual", shape.width // 2, kind)]
        + [(folder / name).read_text() for name in SOURCES]
    )


@functools.lru_cache(maxsize=64)
def _kernel(shape: FlowShape, device: int) -> Kernel:
    with torch.cuda.device(device):
        torch.cuda.current_stream()  # the driver's calls need PyTorch's context
        cubin = compile_cubin(source(shape), ARCHITECTURE)
        return Kernel(
            cubin, "flow", threads=THREADS, cluster=1, shared=shape.shared_bytes, together=True
        )


class FusedFlow:
    """The kernel for one model on one device."""

    def __init__(
        self, channels: int, layers: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Take memory for what blocks exchange; widths are compiled when they are needed.

        Args:
            channels: C, one of ``CHANNELS``.
            layers: Of a flow.
            dtype: torch.float16 or torch.bfloat16.
            device: Of compute capability 9.0.
        """
        self._index = torch.cuda.current_device() if device.index is None else device.index
        self._count = torch.cuda.get_device_properties(self._index).multi_processor_count
        self._channels, self._layers, self._bf16 = channels, layers, dtype == torch.bfloat16
        most = self._count * 64 * max(WIDTHS)  # numbers: every block's channels of its places
        self._x = torch.zeros((layers, most), dtype=dtype, device=device)  # the first: activations
        self._flags = torch.zeros(2 * self._count + 1, dtype=torch.int32, device=device)

    def shape(self, phases: int, places: int) -> FlowShape | None:
        """The narrowest tiles that all run at once, or None."""
        ranks = self._channels // 64
        for width in WIDTHS:
            if phases * -(-places // width) * ranks <= self._count:
                return FlowShape(self._channels, width, self._layers, self._bf16)
        return None

    def prepare(
        self,
        shape: FlowShape,
        *,
        given: Tensor,
        layers: Sequence[Mapping[str, Tensor]],
        start: Tensor,
        mel: Tensor,
        mel_strides: tuple[int, int],
        bits: Tensor,
        out: Tensor,
    ) -> Launch:
        """Everything about one launch but the stream.

        Args:
            shape: From :meth:`shape`.
            given: [P, N, 64] layer 0's input; N is a multiple of 8.
            layers: Of each layer ``weight``, ``cond``, ``bias``, ``residual``, ``residual_bias``
                and ``output``, as :meth:`fastglow.kernels.hopper.FusedLayer.prepare` takes them;
                layer i has dilation 2**i.
            start: [C, 64].
            mel: Flat; row (p, n) starts at p * mel_strides[0] + n * mel_strides[1], K long.
            mel_strides: In numbers, multiples of 8.
            bits: [N / 8] uint8, bit i of byte j set if place 8j + i is inside a row.
            out: [R, P, 8, N] float32, written.
        """
        phases, places, inputs = given.shape
        c, nt, k = shape.channels, shape.width, layers[0]["cond"].shape[2]
        across = -(-places // nt)
        boxes = functools.partial(matrix_map, bf16=self._bf16)
        size = phases * places * c
        streams = [given, *(x[:size].view(phases, places, c) for x in self._x[1:])]
        acts = self._x[0][: phases * across * nt * c].view(-1, c)
        packed = b""
        for layer, x in zip(layers, streams, strict=True):
            rows = {"weight": 128, "cond": 128, "residual": 64}
            maps = (boxes(layer[name], count) for name, count in rows.items())
            pointers = (layer[name] for name in ("bias", "residual_bias", "output"))
            packed += b"".join(maps) + boxes(x, nt, planes=True)
            packed += struct.pack("<3Q40x", *(t.data_ptr() for t in pointers))
        packed += boxes(start, 64)
        packed += mel_map(mel, mel_strides, (phases, places, k), nt, bf16=self._bf16)
        packed += boxes(acts, nt)
        numbers = (
            places,
            phases,
            across,
            layers[0]["weight"].shape[1] // inputs,
            k // 64,
            1 if mel_strides[0] else 0,
            2 * c if layers[0]["cond"].shape[0] > 1 else 0,
        )
        packed += struct.pack(
            "<3Q7i", bits.data_ptr(), out.data_ptr(), self._flags.data_ptr(), *numbers
        )
        blocks = phases * across * shape.ranks
        held = (given, layers, start, mel, bits, out, self._x, self._flags)
        return Launch(_kernel(shape, self._index), blocks, packed, held)
