"""All layers of a flow in one launch, for short inputs on NVIDIA's sm_90: CUDA C++ beside this.

*Why.* A second of audio is two narrow tiles of each of 32 phases. With a launch a layer
(hopper.py), 64 of 132 multiprocessors multiply at a time, and every layer waits for all blocks of
the one before.

*The work of a block.* 64 MT channels of a tile of NT places of one phase, all layers long. Its x
and its mel stay in shared memory. Two warpgroups multiply; one warp loads weights, which wait for
nothing and so run ahead into the next layer; one loads the mel and the taps; one stores and sends.
The two blocks of a cluster share a tile of 256 channels and give each other their activations and
their x. While activations are on their way, the next layer's conditioning begins.

*How blocks wait for one another.* A block adds to its tile's flag when its x is stored, and a tap
waits for the flags of the tiles that it reads, not for the whole layer. Half of a layer's time can
pass until then (9,700 of 20,300 clocks where the taps come in their order), so the tap in the
middle, which comes from the cluster itself, is multiplied before the others. The flag is released
at the scope of the GPU: without that, up to 103 of 150 launches read what had not arrived. Every
layer has its own x, so that none is overwritten while another block reads it. Flags count on from
launch to launch. All blocks must run at once, so the launch is cooperative.

*Determinism.* The bits are those of hopper.py: every element adds its products in the same
order, and partial sums of the output rows are of the same channels.

*Measured*, H100, 256 channels, 88 places: 89 us a flow, where taps in their order and the
partner's x through the L2 cache take 94. Before the middle tap came first, this and a launch a
layer: 96 places 93 and 109, 128 places 106 and 143, 64 channels 37 and 40.

*Floor.* 25 GFLOP a flow, 34 us at 742 TFLOP/s; 91 MB of weights, 30 us at 3 TB/s.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastglow.kernels.boxes import matrix_map, tensor_map
from fastglow.kernels.nvrtc import Kernel, compile_cubin, driver_version
from fastglow.kernels.sm90 import ARCHITECTURE, SHARED, THREADS, Launch, assembled, tiles_of

SOURCES = ("hopper.cuh", "hopper_flow_move.cuh", "hopper_flow_output.cuh", "hopper_flow.cu")
# Places a tile, by channels: those whose bits were compared on an H100, and no others.
WIDTHS = {64: (16, 32, 128, 192), 128: (16, 32, 64), 256: (16, 32, 48, 64)}
EARLY = 2  # of 5 blocks of the mel are multiplied a layer ahead where blocks exchange activations
PARAMETERS = 12010  # the CUDA from which a kernel takes more than 4,096 bytes: 4.9 kB here


@dataclass(frozen=True, slots=True)
class FlowShape:
    """How one width of the kernel is compiled.

    Attributes:
        channels: C.
        width: NT, places a tile.
        layers: Of the flow.
        bands: Of the mel, a multiple of 16: 16 columns of a window are of one frame.
        window: K, columns of the conditioning, a multiple of 64 and of the bands.
        bf16: bfloat16 rather than float16.
    """

    channels: int
    width: int
    layers: int
    bands: int
    window: int
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
    def frames(self) -> int:
        """Of mel that the windows of a tile read."""
        return self.width + self.window // self.bands - 1

    @property
    def b_stages(self) -> int:
        """Of what is multiplied."""
        return 8 if self.width <= 48 else 6 if self.width <= 64 else 4

    @property
    def a_stages(self) -> int:
        """Of weights: as many as fit, so that they come early."""
        return min(12, (SHARED - 2048 - self._inputs) // self._a_bytes)

    @property
    def shared_bytes(self) -> int:
        """With room to align the rings."""
        return self.a_stages * self._a_bytes + self._inputs + 1024

    @property
    def _a_bytes(self) -> int:
        return 128 * self.tiles * 128

    @property
    def _inputs(self) -> int:
        boxes = self.b_stages + (1 + self.blocks) * self.tiles
        return boxes * self.width * 128 + self.frames * self.bands * 2


def source(shape: FlowShape) -> str:
    """The CUDA C++ of one shape."""
    defines = {
        "A_STAGES": shape.a_stages,
        "B_STAGES": shape.b_stages,
        "EARLY_BLOCKS": EARLY,
        "LAYERS": shape.layers,
        "BANDS": shape.bands,
        "MEL_BLOCKS": shape.window // 64,
    }
    return assembled(shape, defines, SOURCES)


@functools.lru_cache(maxsize=64)
def _kernel(shape: FlowShape, device: int) -> Kernel:
    with torch.cuda.device(device):
        torch.cuda.current_stream()  # the driver's calls need PyTorch's context
        cubin = compile_cubin(source(shape), ARCHITECTURE)
        return Kernel(
            cubin,
            "flow",
            threads=THREADS,
            cluster=shape.blocks,
            shared=shape.shared_bytes,
            together=True,
        )


def supported(channels: int, given: int, taps: int, bands: int, window: int) -> bool:
    """Whether a model has such a kernel where :func:`fastglow.kernels.hopper.supported` says so.

    Published models, up to 256 channels: no others were run.

    Args:
        channels: C; 512 would take 256 blocks.
        given: Width of layer 0's input.
        taps: Of a layer.
        bands: Of the mel, all of whose phases read the same windows.
        window: K, columns of the conditioning.
    """
    return channels in WIDTHS and (given, taps, bands, window) == (64, 3, 80, 320)


def loads() -> bool:
    """Whether the driver takes a kernel with so many parameters."""
    return driver_version() >= PARAMETERS


class FusedFlow:
    """The kernel for one model on one device."""

    def __init__(
        self,
        channels: int,
        layers: int,
        bands: int,
        window: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Take memory for what blocks exchange; widths are compiled when they are needed.

        Args:
            channels: C.
            layers: Of a flow.
            bands: Of the mel.
            window: K, columns of the conditioning.
            dtype: torch.float16 or torch.bfloat16.
            device: Of compute capability 9.0.
        """
        self._index = torch.cuda.current_device() if device.index is None else device.index
        self._count = torch.cuda.get_device_properties(self._index).multi_processor_count
        self._channels, self._bf16 = channels, dtype == torch.bfloat16
        self._rest = (layers, bands, window, self._bf16)
        most = self._count * max(64 * s.tiles * s.width for s in self.shapes())  # numbers
        self._x = torch.zeros((layers - 1, most), dtype=dtype, device=device)
        self._flags: dict[tuple[int, int, int], Tensor] = {}

    def shapes(self) -> Iterator[FlowShape]:
        """The widths that this model has, the narrowest first."""
        for width in WIDTHS[self._channels]:
            yield FlowShape(self._channels, width, *self._rest)

    def shape(self, phases: int, places: int) -> FlowShape | None:
        """The narrowest tiles that all run at once, or None."""
        for shape in self.shapes():
            clusters = phases * -(-places // shape.width)
            if clusters * shape.blocks > self._count:
                continue
            if clusters <= _kernel(shape, self._index).clusters:
                return shape
        return None

    def warm(self) -> None:
        """Compile every width, or load it from the cache."""
        for shape in self.shapes():
            _kernel(shape, self._index)

    def prepare(
        self,
        shape: FlowShape,
        *,
        given: Tensor,
        layers: Sequence[Mapping[str, Tensor]],
        start: Tensor,
        mel: Tensor,
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
            mel: Flat; the window of place n starts at n times the bands, K long.
            bits: [N / 8] uint8, bit i of byte j set if place 8j + i is inside a row. The kernel
                before this one must not write them: they are read while it may still run.
            out: [R, P, 8, N] float32, written.
        """
        phases, places, inputs = given.shape
        c, nt, bands = shape.channels, shape.width, shape.bands
        across = -(-places // nt)
        boxes = functools.partial(matrix_map, bf16=self._bf16)
        size = phases * places * c
        streams = [given, *(x[:size].view(phases, places, c) for x in self._x)]
        rows = {
            "weight": 128 * shape.tiles,
            "cond": 128 * shape.tiles,
            "residual": 64 * shape.tiles,
        }
        packed = b""
        for layer, x in zip(layers, streams, strict=True):
            maps = (boxes(layer[name], count) for name, count in rows.items())
            pointers = (layer[name] for name in ("bias", "residual_bias", "output"))
            packed += b"".join(maps) + boxes(x, nt, planes=True)
            packed += struct.pack("<3Q40x", *(t.data_ptr() for t in pointers))
        packed += boxes(start, rows["residual"])
        packed += tensor_map(
            mel.data_ptr(),
            (8, places + shape.window // bands - 1, bands // 8),
            (2 * bands, 16),
            (8, shape.frames, bands // 8),
            bf16=self._bf16,
            swizzled=False,
        )
        numbers = (
            places,
            phases,
            across,
            layers[0]["weight"].shape[1] // inputs,
        )
        key = (phases, across, nt)  # launches are counted in blocks, so by grids of one size
        if key not in self._flags:
            size = 1 + -(-phases * across // 2)
            self._flags[key] = torch.zeros(size, dtype=torch.int64, device=given.device)
        flags = self._flags[key]
        addresses = (bits.data_ptr(), out.data_ptr(), flags.data_ptr(), flags.data_ptr() + 8)
        packed += struct.pack("<4Q4i", *addresses, *numbers)
        held = (given, layers, start, mel, bits, out, self._x, flags)
        return Launch(_kernel(shape, self._index), phases * across, packed, held)
