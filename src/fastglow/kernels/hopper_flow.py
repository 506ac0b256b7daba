"""All layers of all flows in one launch, for short inputs on NVIDIA's sm_90: CUDA C++ beside this.

*Why.* A second of audio is two narrow tiles of each of 32 phases. With a launch a layer
(hopper.py), 64 of 132 multiprocessors multiply at a time, and every layer waits for all blocks of
the one before. With a launch a flow, the end of one, the coupling kernel and the start of the next
take 11 us.

*The work of a block.* 64 MT channels of a tile of NT places of one phase, all layers long. Its x
and its mel stay in shared memory. Two warpgroups multiply; one warp loads weights, which wait for
nothing and so run ahead into the next layer and the next flow; one loads the mel and the taps; one
stores and sends. The two blocks of a cluster share a tile of 256 channels and give each other their
activations and their x. While activations are on their way, the next layer's conditioning begins.

*How blocks wait for one another.* A block adds to its tile's flag when its x is stored, and a tap
waits for the flags of the tiles that it reads, not for the whole layer. Half of a layer's time can
pass until then (9,700 of 20,300 clocks where the taps come in their order), so the tap in the
middle, which comes from the cluster itself, is multiplied before the others. The flag is released
at the scope of the GPU: without that, up to 103 of 150 launches read what had not arrived. Every
layer has its own x, twice, so that none is overwritten while another block reads it. Flags count on
from launch to launch. All blocks must run at once, so the launch is cooperative.

*Between flows* nothing waits for the whole grid either. A block stores its partial sums of the
output rows and adds to its flag. Three warps, a tap each, compute coupling, inverse 1x1 convolution
and layer 0's input of the places that their tap reads, straight into shared memory; meanwhile the
mel is multiplied. What follows the last flow of a launch is left to coupling.py. A stream, whose
flows lag, has launches of one flow.

*Determinism.* The bits are those of hopper.py and coupling.py: every element adds its products in
the same order, partial sums of the output rows are of the same channels, and between flows there
are the instructions that Triton chooses.

*Measured*, H100, 256 channels, 88 places, one flow a launch: 89 us a flow, where taps in their
order and the partner's x through the L2 cache take 94. Before the middle tap came first, this and a
launch a layer: 96 places 93 and 109, 128 places 106 and 143, 64 channels 37 and 40. All twelve
flows in one launch: 1,000 to 1,015 us the whole graph of a call; in twelve launches 1,058 to 1,091.

*Floor.* 25 GFLOP a flow, 34 us at 742 TFLOP/s; 91 MB of weights, 30 us at 3 TB/s.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastglow.kernels.boxes import matrix_map, tensor_map
from fastglow.kernels.nvrtc import Kernel, compile_cubin
from fastglow.kernels.sm90 import ARCHITECTURE, SHARED, THREADS, Launch, assembled, tiles_of
from fastglow.kernels.stacked import Stacked

SOURCES = (
    "hopper.cuh",
    "hopper_flow_move.cuh",
    "hopper_flow_coupling.cuh",
    "hopper_flow_load.cuh",
    "hopper_flow_output.cuh",
    "hopper_flow.cu",
)
# Places a tile, by channels: those whose bits were compared on an H100, and no others.
WIDTHS = {64: (16, 32, 128, 192), 128: (16, 32, 64), 256: (16, 32, 48, 64)}
EARLY = 1  # of 5 blocks of the mel are multiplied a layer ahead where blocks exchange activations


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


def supported(channels: int, given: int, taps: int, layers: int, bands: int, window: int) -> bool:
    """Whether a model has such a kernel where :func:`fastglow.kernels.hopper.supported` says so.

    Published models, up to 256 channels: no others were run.

    Args:
        channels: C; 512 would take 256 blocks.
        given: Width of layer 0's input.
        taps: Of a layer.
        layers: Of a flow; a single one would have nothing to exchange.
        bands: Of the mel, all of whose phases read the same windows.
        window: K, columns of the conditioning.
    """
    published = (given, taps, bands, window) == (64, 3, 80, 320)
    return channels in WIDTHS and published and layers > 1


class FusedFlow:
    """The kernel for one model on one device."""

    def __init__(self, stacked: Stacked, group: int, bands: int) -> None:
        """Take memory for what blocks exchange; widths are compiled when they are needed.

        Args:
            stacked: The weights, float16 or bfloat16, on a device of compute capability 9.0.
            group: G, planes of the audio, at most 8.
            bands: Of the mel.
        """
        device, dtype = stacked.start.device, stacked.start.dtype
        self._index = torch.cuda.current_device() if device.index is None else device.index
        self._count = torch.cuda.get_device_properties(self._index).multi_processor_count
        self._stacked, self._group, self._bf16 = stacked, group, dtype == torch.bfloat16
        self._channels = stacked.start.shape[1]
        layers = stacked.bias.shape[1]
        self._rest = (layers, bands, stacked.cond.shape[-1], self._bf16)
        most = self._count * max(64 * s.tiles * s.width for s in self.shapes())  # numbers of x
        self._x = torch.zeros(2 * (layers - 1) * most, dtype=dtype, device=device)
        steps = most // self._channels
        self._planes = torch.zeros((2, steps * group), device=device)
        self._out = torch.zeros(next(self.shapes()).blocks * 8 * steps, device=device)
        self._flags: dict[tuple[int, int, int, int], Tensor] = {}

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

    def source(self, planes: Tensor, count: int) -> Tensor:
        """Where the first of so many flows of a launch reads planes that end in ``planes``."""
        return self._sets(planes)[(count - 1) % 3]

    def _sets(self, planes: Tensor) -> list[Tensor]:
        return [planes, *(x[: planes.numel()].view(planes.shape) for x in self._planes)]

    def prepare(
        self,
        shape: FlowShape,
        *,
        flows: tuple[int, int],
        given: Tensor,
        mel: Tensor,
        bits: Tensor,
        out: Tensor,
        planes: Tensor,
    ) -> Launch:
        """Everything about one launch but the stream.

        Args:
            shape: From :meth:`shape`.
            flows: The first, and how many. Of the last only the layers run.
            given: [P, N, 64] layer 0's input of the first; N is a multiple of 8.
            mel: Flat; the window of place n starts at n times the bands, K long.
            bits: [N / 8] uint8, bit i of byte j set if place 8j + i is inside a row. The kernel
                before this one must not write them: they are read while it may still run.
            out: [R, P, 8, N] float32, written for the last.
            planes: [P, G, N] float32, what the coupling of the last reads, written where there is
                more than one; :meth:`source` is what that of the first reads.
        """
        phases, places, inputs = given.shape
        first, count = flows
        across = -(-places // shape.width)
        packed = self._maps(shape, given, mel)
        w = self._stacked
        small = (w.bias, w.residual_bias, w.output, w.output_bias, w.inverse, w.kinds, bits)
        key = (phases, across, shape.width, count)  # launches are counted, so by those of one size
        if key not in self._flags:
            size = 1 + -(-phases * across // 2)
            self._flags[key] = torch.zeros(size, dtype=torch.int64, device=given.device)
        flags, sets = self._flags[key], (out, self._out, *self._sets(planes))
        addresses = [t.data_ptr() for t in (*small, *sets, flags)]
        taps = w.gate0.shape[2] // inputs
        numbers = (places, phases, across, taps, first, count, self._group)
        packed += struct.pack("<14Q7i", *addresses, flags.data_ptr() + 8, *numbers)
        held = (given, w, mel, self._x, small, sets, flags)
        return Launch(_kernel(shape, self._index), phases * across, packed, held)

    def _maps(self, shape: FlowShape, given: Tensor, mel: Tensor) -> bytes:
        """What the copy engine reads and writes, in the order of Params."""
        phases, places, _ = given.shape
        w, bands, planes = self._stacked, shape.bands, 2 * (shape.layers - 1) * phases
        x = self._x[: planes * places * shape.channels].view(planes, places, shape.channels)
        boxes = functools.partial(matrix_map, bf16=self._bf16)
        matrices = ((w.gate0, 128), (w.gate, 128), (w.cond, 128), (w.residual, 64), (w.start, 64))
        packed = [boxes(matrix, rows * shape.tiles) for matrix, rows in matrices]
        packed += [boxes(tensor, shape.width, planes=True) for tensor in (given, x)]
        windows = tensor_map(
            mel.data_ptr(),
            (8, places + shape.window // bands - 1, bands // 8),
            (2 * bands, 16),
            (8, shape.frames, bands // 8),
            bf16=self._bf16,
            swizzled=False,
        )
        return b"".join(packed) + windows
