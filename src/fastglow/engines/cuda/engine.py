"""The CUDA engine: a batch on one frame axis, flow by flow, in a CUDA graph a bucket of lengths.

Rounding depends on the model, the device, the precision and the conditioning form alone: kernels
add in one order whatever the tile, and every row stands on the axis between zeros.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from fastglow.engines.base import Float32, Noise
from fastglow.engines.cuda.aside import Aside
from fastglow.engines.cuda.checks import check_shapes, indexed
from fastglow.engines.cuda.graphs import Passes
from fastglow.engines.cuda.inbox import Requests
from fastglow.engines.cuda.launches import Launch, holding, launches
from fastglow.engines.cuda.layers import Buffers, Call, choose_layers
from fastglow.engines.cuda.pack import Packer
from fastglow.engines.cuda.pieces import Axis, axes, bucket, cut
from fastglow.engines.cuda.push import Push, Reach
from fastglow.engines.cuda.room import Room
from fastglow.engines.cuda.stream import CudaStream
from fastglow.engines.cuda.turns import Slip, Turns
from fastglow.engines.cuda.workspace import Layouts, Placed, Workspace, fill_upsampled
from fastglow.errors import EngineError, InputError
from fastglow.kernels.common import STORAGE
from fastglow.kernels.request import words
from fastglow.noise import SeededNoise
from fastglow.plan import Plan

Precision = Literal["fp16", "bf16", "tf32", "fp32"]
WARM_FRAMES = (1, 300, 3000)  # lengths that meet every kernel


class CudaEngine:
    """Runs a plan on an NVIDIA GPU.

    Safe to call from several threads: calls run one after another, and one whose length has been
    met is launched while the one before it still runs. ``FASTGLOW_GRAPHS=0`` launches every
    kernel by itself, for debugging.

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
            widest: Places at once, more than the receptive field; by default what memory
                allows, at most 16,384 mel frames.

        Raises:
            EngineError: The model does not fit into the device's memory.
            InputError: ``widest`` is too small.
        """
        self.config, self.conditioning = plan.config, plan.conditioning
        self.device, self.precision = device, precision
        self._plan, self._device = plan, indexed(device)
        dtype = STORAGE[precision]
        try:
            packer = Packer(plan, precision, self._device)
            self._flows = [packer.flow(k) for k in range(plan.config.n_flows)][::-1]
            self._layers = choose_layers(packer, dtype, self._device)
        except torch.OutOfMemoryError:
            raise EngineError(
                f"the model does not fit into the memory of {device} in {precision} with "
                f"{plan.conditioning} conditioning; try --conditioning published or --device cpu"
            ) from None
        self._packer = packer
        self._workspace = Workspace(plan, packer, self._layers, dtype, self._device)
        self._room = Room.of(plan, self._workspace.bytes_per_place, self._device)
        self._widest = widest or self._room.most()
        if self._widest <= sum(self._room.field):
            raise InputError(
                f"widest={self._widest}: the receptive field takes {sum(self._room.field)} places"
            )
        graphs = os.environ.get("FASTGLOW_GRAPHS", "1") != "0" and self._device.type == "cuda"
        self._passes = Passes(self._device, graphs)
        self._aside = Aside(self._device)
        self._layouts = Layouts(self._workspace.phases * plan.config.n_group, self._aside)
        self._last: Placed | None = None  # what the buffers' mask was made for
        self._requests, self._turns = Requests(self._device), Turns(self._device)
        name = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "cpu"
        self.description = (
            f"{device} {precision}, {name}, {self.conditioning} conditioning, layers "
            f"{self._layers.name}"
        )

    def infer(self, mel: Float32, noise: Noise, lengths: Sequence[int]) -> Float32:
        """See :class:`fastglow.engines.base.Engine`."""
        drawn = noise if isinstance(noise, SeededNoise) else self._aside.give(noise)[0]
        return self._aside.fetch(self.infer_device(self._aside.give(mel)[0], drawn, lengths))

    def stream(self, noise: SeededNoise, lookahead: int | None = None) -> CudaStream:
        """See :class:`fastglow.engines.base.Engine`."""
        return CudaStream(self._plan, self._pushing, noise, lookahead)

    @contextmanager
    def _pushing(self, frames: int, reach: Reach) -> Iterator[tuple[Push, Call]]:
        """What takes so many new frames of a stream through all flows, and what runs it."""
        with self._turns.turn():
            try:
                places = bucket(reach.history + frames)
                self._grow(places)
                self._last = None  # the flows work where the mask was
                if (places, reach) not in self._passes:
                    buffers = self._workspace.buffers(places)
                    push = Push(self._packer, self._flows, self._layers, buffers, reach)
                    self._passes.add((places, reach), push, push.calls)
                yield self._passes.get((places, reach))
            except torch.OutOfMemoryError:
                self._drop()
                raise EngineError(
                    f"no memory on {self.device} for {frames} frames of a stream; close other "
                    "programs on the GPU or push fewer at a time"
                ) from None

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
            InputError: The shapes or types do not fit each other.
        """
        samples = self.config.samples(mel.shape[2])
        check_shapes(mel, noise, lengths, (self.config.n_mel_channels, samples))
        mel = mel.contiguous()
        noise = noise if isinstance(noise, SeededNoise) else noise.contiguous()
        with self._turns.turn():
            slip = self._turns.slip(read=check)
            audio = self._narrowing(mel, noise, lengths, slip)
            slip.done.record()
        if check:
            self._turns.read(slip)
        return audio

    def _narrowing(
        self, mel: Tensor, noise: Tensor | SeededNoise, lengths: Sequence[int], slip: Slip
    ) -> Tensor:
        """:meth:`_infer`, in passes half as wide while memory runs out: the same bits."""
        wide = self._widest
        while True:
            try:
                return self._infer(mel, noise, lengths, slip)
            except torch.OutOfMemoryError:
                self._drop()
                if self._widest // 2 < self._room.least:
                    self._widest = wide
                    raise self._room.none_left(len(mel), max(lengths)) from None
                self._widest //= 2

    def _infer(
        self, mel: Tensor, noise: Tensor | SeededNoise, lengths: Sequence[int], slip: Slip
    ) -> Tensor:
        """The audio."""
        samples = self.config.samples(mel.shape[2])
        whole = self.config.samples(min(lengths)) == samples  # a fill takes as long as two layers
        make = torch.empty if whole else torch.zeros
        audio = make(len(mel), samples, device=self._device)
        pieces = cut(self._counts(lengths), self._widest, self._room.field)
        for axis in axes(pieces, self._widest, self._gap):
            buffers, run = self._pass(axis.places)
            self._fill(buffers, axis, mel, noise, audio, lengths, slip)
            run()
        return audio

    def _counts(self, lengths: Sequence[int]) -> list[int]:
        """Places of each row."""
        return [n if self.config.has_phases else self.config.steps(n) for n in lengths]

    def warm(self) -> None:
        """Compile every kernel of this model, or load it from the caches on disk."""
        with self._turns.turn():
            self._layers.warm()
        for frames in WARM_FRAMES:
            mel = torch.zeros(1, self.config.n_mel_channels, frames, device=self._device)
            noise = torch.zeros(1, self.config.samples(frames), device=self._device)
            for source in (SeededNoise((0,), 0.0), noise):
                self.infer_device(mel, source, [frames])

    def kernels(self, frames: int, batch: int) -> list[Launch]:
        """Every launch of one inference, to be timed one by one."""
        counts = self._counts([frames] * batch)
        found = list(axes(cut(counts, self._widest, self._room.field), self._widest, self._gap))
        if len(found) > 1:
            raise InputError(
                f"{batch} x {frames} frames take {len(found)} passes of {self._widest} places; "
                "kernels are measured in one: ask for less"
            )
        samples = self.config.samples(frames)
        mel = torch.zeros(batch, self.config.n_mel_channels, frames, device=self._device)
        noise, audio = torch.zeros(2, batch, samples, device=self._device)
        with self._turns.turn():
            buffers, _ = self._pass(found[0].places)
            slip = self._turns.slip(read=False)
            self._fill(buffers, found[0], mel, noise, audio, [frames] * batch, slip)
        steps = sum(counts) * self._workspace.phases
        each = launches(self._packer, self._flows, self._layers, buffers, steps)
        return [launch._replace(call=holding(launch.call, mel, noise, audio)) for launch in each]

    @property
    def _gap(self) -> int:
        """Zero places between rows: what the widest dilated tap and the mel window reach."""
        wn = self.config.wn
        reach = wn.kernel_size // 2 * 2 ** (wn.n_layers - 1)
        return int(max(-(-reach // self._workspace.phases) + 1, self.config.mel_taps))

    def _fill(
        self,
        buffers: Buffers,
        axis: Axis,
        mel: Tensor,
        noise: Tensor | SeededNoise,
        audio: Tensor,
        lengths: Sequence[int],
        slip: Slip,
    ) -> None:
        """Fill in the request of one axis, and what else depends on it."""
        places = self._layouts.get(axis, audio.shape[1])
        if self._last is not places:  # else the mask is as it was
            self._last = None  # until it is, if this is interrupted
            buffers.mask.copy_(places.mask)
            buffers.bits.copy_(places.bits)
            self._last = places
        if self.conditioning == "published":
            fill_upsampled(buffers, self._plan, axis, mel, lengths, self._packer)
        drawn: dict[str, Any] = {}
        if isinstance(noise, SeededNoise):
            seeds = [noise.seeds[piece.row] for _, piece in axis.pieces]
            drawn = {"seeds": seeds, "sigma": noise.sigma, "start": noise.start}
        request = words(
            mel=mel,
            noise=None if isinstance(noise, SeededNoise) else noise,
            audio=audio,
            flag=slip.flag,
            call=slip.call,
            within=places.within,
            target=places.target,
            row=places.row,
            piece=places.piece,
            **drawn,
        )
        self._requests.send(request, buffers.request)

    def _pass(self, places: int) -> tuple[Buffers, Call]:
        """The bucket's buffers, and what runs all flows on them."""
        self._grow(places)
        if places not in self._passes:
            buffers = self._workspace.buffers(places)
            each = launches(self._packer, self._flows, self._layers, buffers, places)
            self._passes.add(places, buffers, [launch.call for launch in each])
        return self._passes.get(places)

    def _grow(self, places: int) -> None:
        """Make the workspace as large."""
        if not self._workspace.holds(places):
            self._drop()  # before growing, or both memories are held
            self._workspace.grow(places)

    def _drop(self) -> None:
        """Give the workspace's memory back."""
        self._passes.clear()
        self._last = None
        self._workspace.release()
