"""The CUDA engine: a batch on one frame axis, flow by flow, in a CUDA graph a bucket of lengths.

Rounding depends on the model, the device, the precision and the conditioning form alone: kernels
add in the order of K whatever the tile, and every row stands on the axis between zeros.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fastglow.engines.base import Float32, Noise
from fastglow.engines.cuda.launches import Launch, launches
from fastglow.engines.cuda.layers import Buffers, Call, choose_layers
from fastglow.engines.cuda.pack import Packer
from fastglow.engines.cuda.pieces import Axis, axes, cut, layout
from fastglow.engines.cuda.workspace import Placed, Workspace, fill_mel
from fastglow.errors import EngineError
from fastglow.kernels.common import STORAGE
from fastglow.kernels.coupling import coupling, prepare
from fastglow.kernels.latent import collect, spread
from fastglow.noise import SeededNoise
from fastglow.plan import Plan
from fastglow.streaming import receptive_field

Precision = Literal["fp16", "bf16", "tf32", "fp32"]
GRAPHS = 16  # kept; the least recently used goes first
LAYOUTS = 64  # likewise
WIDEST = 16_384  # places at once: at 256 channels 0.7 GB, and launches cost nothing any more
WARM_FRAMES = (1, 300, 3000)  # lengths that meet every kernel


class CudaEngine:
    """Runs a plan on an NVIDIA GPU.

    Safe to call from several threads: calls run one after another. ``FASTGLOW_GRAPHS=0`` launches
    every kernel by itself, for debugging.

    Attributes:
        precision: Storage and products; sums, coupling and 1x1 convolutions are always float32.
        conditioning: The plan's form.
    """

    def __init__(
        self, plan: Plan, *, precision: Precision = "fp16", device: str = "cuda", widest: int = 0
    ) -> None:
        """Pack the weights on the device and choose the kernels.

        Args:
            plan: What to run.
            precision: "fp16", "bf16", "tf32" or "fp32" (three tf32 products each).
            device: "cuda", "cuda:1"; "cpu" runs Triton's interpreter, for tests.
            widest: Places at once; by default what memory allows, at most 16,384.

        Raises:
            EngineError: The model does not fit into the device's memory.
        """
        self.config, self.conditioning = plan.config, plan.conditioning
        self.device, self.precision = device, precision
        self._plan, self._device = plan, torch.device(device)
        dtype = STORAGE[precision]
        try:
            packer = Packer(plan, dtype, self._device)
            self._flows = [packer.flow(k) for k in range(plan.config.n_flows)][::-1]
            self._layers = choose_layers(
                packer.channels, packer.rows, precision, dtype, self._device
            )
        except torch.OutOfMemoryError:
            raise EngineError(
                f"the model does not fit into the memory of {device} in {precision} with "
                f"{plan.conditioning} conditioning; try --conditioning published or --device cpu"
            ) from None
        self._packer = packer
        self._workspace = Workspace(plan, packer, self._layers, dtype, self._device)
        self._field = (0, 0)
        if plan.config.has_phases:
            self._field = receptive_field(plan.config)
        self._widest = widest or self._places_that_fit()
        graphs = os.environ.get("FASTGLOW_GRAPHS", "1") != "0"
        self._graphs_wanted = graphs and self._device.type == "cuda"
        self._graphs: OrderedDict[int, tuple[Buffers, list[Call], Any]] = OrderedDict()
        self._layouts: OrderedDict[tuple[Axis, int, bool], Placed] = OrderedDict()
        self._last: Placed | None = None  # what the buffers' mask and gaps were made for
        self._lock = threading.Lock()
        name = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "cpu"
        self.description = (
            f"{device} {precision}, {name}, {self.conditioning} conditioning, layers "
            f"{self._layers.name}"
        )

    def infer(self, mel: Float32, noise: Noise, lengths: Sequence[int]) -> Float32:
        """See :class:`fastglow.engines.base.Engine`."""
        drawn = noise if isinstance(noise, SeededNoise) else self._to_device(noise)
        return self.infer_device(self._to_device(mel), drawn, lengths).cpu().numpy()

    def infer_device(
        self,
        mel: Tensor,
        noise: Tensor | SeededNoise,
        lengths: Sequence[int],
        *,
        check: bool = True,
    ) -> Tensor:
        """As :meth:`infer`, with tensors on the device.

        Args:
            mel: [B, n_mel, frames] float32.
            noise: [B, samples] float32, already scaled by sigma, or seeds.
            lengths: Frames of each row that count.
            check: Wait for the result and raise if it is not finite.

        Returns:
            [B, samples] float32; a row is zero past its length.

        Raises:
            EngineError: The result is not finite, or memory ran out.
        """
        counts = [n if self.config.has_phases else self.config.steps(n) for n in lengths]
        samples = self.config.samples(mel.shape[2])
        with self._lock, torch.inference_mode(), self._here():
            try:
                audio = torch.zeros(len(mel), samples, device=self._device)
                flag = torch.zeros(1, dtype=torch.int32, device=self._device)
                pieces = cut(counts, self._widest, self._field)
                for axis in axes(pieces, self._widest, self._gap):
                    self._run(axis, mel, noise, audio, flag, lengths)
            except torch.OutOfMemoryError:
                raise EngineError(
                    f"no memory on {self.device} for {len(mel)} x {max(lengths)} frames; close "
                    "other programs on the GPU or use smaller batches"
                ) from None
            if check and int(flag.item()):
                raise EngineError(
                    "the audio holds values that are not finite; the mel may be far outside the "
                    "model's range (run `fastglow doctor` on it)"
                )
        return audio

    def warm(self) -> None:
        """Compile every kernel of this model, or load it from the caches on disk."""
        for frames in WARM_FRAMES:
            mel = torch.zeros(1, self.config.n_mel_channels, frames, device=self._device)
            self.infer_device(mel, SeededNoise((0,), 0.0), [frames])

    def kernels(self, frames: int, batch: int) -> list[Launch]:
        """Every launch of the flows of one inference, to be timed one by one."""
        counts = [frames if self.config.has_phases else self.config.steps(frames)] * batch
        self._last = None  # what is launched from outside leaves its own traces
        (axis,) = axes(cut(counts, self._widest, self._field), self._widest, self._gap)
        buffers = self._pass(axis.places)[0]
        steps = sum(counts) * self._workspace.phases
        return launches(self._flows, self._calls(buffers), self._packer, buffers, steps)

    def _here(self) -> AbstractContextManager[Any]:
        """Makes the engine's GPU the one that kernels are launched on."""
        if self._device.type == "cuda":
            return torch.cuda.device(self._device)
        return nullcontext()

    @property
    def _gap(self) -> int:
        """Zero places between rows: what the widest dilated tap and the mel window reach."""
        wn = self.config.wn
        reach = wn.kernel_size // 2 * 2 ** (wn.n_layers - 1)
        return int(max(-(-reach // self._workspace.phases) + 1, self.config.mel_taps))

    def _places_that_fit(self) -> int:
        """As many places as four fifths of the free memory hold."""
        if self._device.type != "cuda":
            return WIDEST
        free = int(torch.cuda.mem_get_info(self._device)[0])
        places = int(0.8 * free) // self._workspace.bytes_per_place
        least = 2 * (sum(self._field) + 32)
        if places < least:
            raise EngineError(
                f"{free / 1e9:.1f} GB are free on {self.device}; {least} frames at once need "
                f"{least * self._workspace.bytes_per_place / 1e9:.1f} GB: close other programs on "
                "the GPU or use --device cpu"
            )
        return int(min(WIDEST, places // 32 * 32))

    def _to_device(self, array: Float32) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _first_call(self, buffers: Buffers) -> Call:
        """The launch that prepares the first flow's input."""
        channels, swapped = self._flows[0].channels, self._flows[0].swapped
        planes, mask, given = buffers.planes, buffers.mask, buffers.given
        return lambda: prepare(planes, mask, given, channels=channels, swapped=swapped)

    def _calls(self, buffers: Buffers) -> list[Call]:
        """The launches of all flows."""
        out: list[Call] = []
        for flow, after in zip(self._flows, [*self._flows[1:], None], strict=True):
            out += [self._layers.prepare(flow, i, buffers) for i in range(len(flow.layers))]

            def couple(flow: Any = flow, after: Any = after) -> None:
                coupling(
                    buffers.out,
                    flow.output_bias,
                    flow.inverse,
                    buffers.planes,
                    buffers.mask,
                    buffers.given,
                    channels=flow.channels,
                    swapped=flow.swapped,
                    next_channels=after.channels if after else 0,
                    next_swapped=after.swapped if after else False,
                )

            out.append(couple)
        return out

    def _run(
        self,
        axis: Axis,
        mel: Tensor,
        noise: Tensor | SeededNoise,
        audio: Tensor,
        flag: Tensor,
        lengths: Sequence[int],
    ) -> None:
        """One axis: fill the buffers, replay the bucket's graph, collect."""
        buffers, calls, graph = self._pass(axis.places)
        places = self._placed(axis, audio.shape[1], isinstance(noise, SeededNoise))
        if self._last is not places:  # else the gaps and the mask are as they were
            buffers.mel.zero_()
            buffers.mask.copy_(places.mask)
            buffers.bits.copy_(places.bits)
            self._last = places
        fill_mel(buffers, self._plan, axis, mel, lengths, self._packer)
        source = places.noise
        if isinstance(noise, SeededNoise):
            bits = np.array(noise.seeds, dtype=np.uint64).view(np.int64)
            seeds = torch.from_numpy(bits).to(self._device)
            if noise.start:
                source = torch.where(source >= 0, source + noise.start, source)
            spread(None, seeds, noise.sigma, source, places.row, buffers.planes)
        else:
            values = noise.reshape(-1).contiguous()
            spread(values, None, 1.0, source, places.row, buffers.planes)
        if graph is not None:
            graph.replay()
        else:
            for call in calls:
                call()
        collect(buffers.planes, places.audio, audio.view(-1), flag)

    def _placed(self, axis: Axis, samples: int, seeded: bool) -> Placed:
        """The axis on the device; a batch of the same lengths finds it there."""
        key = (axis, samples, seeded)
        if key not in self._layouts:
            size = self._workspace.phases * self.config.n_group
            self._layouts[key] = Placed.make(layout(axis, samples, size, seeded), self._device)
            if len(self._layouts) > LAYOUTS:
                self._layouts.popitem(last=False)
        self._layouts.move_to_end(key)
        return self._layouts[key]

    def _pass(self, places: int) -> tuple[Buffers, list[Call], Any]:
        """The bucket's buffers, launches and graph (None where there are no graphs)."""
        if self._workspace.grow(places):
            self._graphs.clear()  # they hold the old addresses
            self._last = None
        if places not in self._graphs:
            buffers = self._workspace.buffers(places)
            calls = [self._first_call(buffers), *self._calls(buffers)]
            graph = self._capture(calls) if self._graphs_wanted else None
            self._graphs[places] = (buffers, calls, graph)
            if len(self._graphs) > GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(places)
        return self._graphs[places]

    def _capture(self, calls: list[Call]) -> Any:
        """All launches as one CUDA graph; run once before, so that nothing compiles in it."""
        for call in calls:
            call()
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        return graph
