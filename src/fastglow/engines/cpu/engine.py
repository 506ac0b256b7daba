"""The CPU engine: places a batch on one frame axis, cuts it into tiles, runs flow by flow.

Every row of a batch stands on the same axis with a gap of zeros between rows, so a batch is
only a longer utterance: the weights are read once for all rows, and no row can touch another.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from fastglow.engines.base import NOT_FINITE, Float32, Noise
from fastglow.engines.cpu.axis import Axis, tiles
from fastglow.engines.cpu.jit import Precision, host
from fastglow.engines.cpu.machine import Inputs, Machine
from fastglow.engines.cpu.pack import aligned
from fastglow.engines.cpu.source import fill_upsampled, mel_plane
from fastglow.engines.cpu.stream import CpuStream
from fastglow.errors import EngineError
from fastglow.noise import SeededNoise
from fastglow.plan import Plan

TILE_FLOATS = 1 << 22  # of one residual stream: 16 MB, so that both stay in a last-level cache


class CpuEngine:
    """Runs a plan in float32 on any number of threads.

    Safe to call from several threads: calls run one after another.
    """

    device = "cpu"

    def __init__(
        self, plan: Plan, *, precision: Precision = "fp32", threads: int | None = None
    ) -> None:
        """Pack the weights and make the machine code.

        Args:
            plan: What to run.
            precision: "fp32", "bf16" (products of bfloat16, sums and coupling in fp32) or "int8"
                (products of bytes, all else in fp32).
            threads: How many; by default what the affinity and the container's quota allow.

        Raises:
            EngineError: The processor lacks the precision, or LLVM cannot make code for it.
        """
        self.precision = precision
        self.config, self.conditioning = plan.config, plan.conditioning
        self._plan = plan
        self._machine = Machine(plan, precision, threads)
        self._lock = threading.Lock()
        self.description = (
            f"cpu {precision}, {self._machine.threads} threads, {host().name} "
            f"({self._machine.shape.lanes} lanes), {self.conditioning} conditioning"
        )

    def warm(self) -> None:
        """Nothing is left to do: the machine code was made, or read from its cache, at load."""

    def infer(self, mel: Float32, noise: Noise, lengths: Sequence[int]) -> Float32:
        """See :class:`fastglow.engines.base.Engine`."""
        config, machine = self.config, self._machine
        if isinstance(noise, SeededNoise):
            counts = [config.samples(n) for n in lengths]
            noise = noise.draw(counts, config.samples(mel.shape[2]))
        reach = config.wn.kernel_size // 2 * 2 ** (config.wn.n_layers - 1)
        axis = Axis.place(
            [self._positions(n) for n in lengths],
            gap=max(-(-reach // machine.phases) + 1, config.mel_taps),
            halo=-(-self._plan.halo // machine.phases),
            block=machine.shape.block,
        )
        with self._lock:
            first = self._audio_planes(axis, noise, lengths)
            last = self._run(axis, mel, lengths, (first, first.copy()))
        audio = self._collect(axis, last, noise.shape, lengths)
        if not np.isfinite(audio).all():
            raise EngineError(NOT_FINITE)
        return audio

    def stream(self, noise: SeededNoise, lookahead: int | None = None) -> CpuStream:
        """See :class:`fastglow.engines.base.Engine`."""
        return CpuStream(self._plan, self._machine, self._lock, noise, lookahead)

    def _positions(self, frames: int) -> int:
        """Places on the axis: frames, or steps when a frame is no whole number of steps."""
        return frames if self.config.has_phases else self.config.steps(frames)

    def _audio_planes(self, axis: Axis, noise: Float32, lengths: Sequence[int]) -> Float32:
        """The scaled noise as [P, n_group, pitch]: every latent channel where it will be used."""
        group = self.config.n_group
        planes = aligned((self._machine.phases, group, axis.pitch))
        for row, (at, count) in enumerate(axis.rows):
            samples = noise[row, : self.config.samples(lengths[row])]
            view = samples.reshape(count, self._machine.phases, group)
            planes[:, :, at : at + count] = view.transpose(1, 2, 0)
        return planes

    def _collect(
        self, axis: Axis, planes: Float32, shape: tuple[int, ...], lengths: Sequence[int]
    ) -> Float32:
        audio = np.zeros(shape, dtype=np.float32)
        for row, (at, count) in enumerate(axis.rows):
            samples = planes[:, :, at : at + count].transpose(2, 0, 1).reshape(-1)
            audio[row, : self.config.samples(lengths[row])] = samples
        return audio

    def _run(
        self, axis: Axis, mel: Float32, lengths: Sequence[int], planes: tuple[Float32, Float32]
    ) -> Float32:
        """Every flow over every tile; returns the planes that hold the audio."""
        config, machine = self.config, self._machine
        widest = TILE_FLOATS // (machine.phases * machine.channels)
        cuts = tiles(axis, max(widest, 4 * axis.halo, 2 * machine.shape.block))
        work = machine.work(cuts[0].frames, axis.guard, streams=2, outputs=1)
        whole = self.conditioning == "phases"
        under_tile = (machine.phases, machine.mel_rows, work.pitch)
        source = mel_plane(axis, mel) if whole else aligned(under_tile)
        jobs = []
        for flow in reversed(machine.flows):
            for tile in cuts:
                mel_frame = tile.first if whole else axis.guard
                inputs = Inputs(source, mel_frame, axis.mask, planes, tile.first)
                core = (tile.core_first - tile.first, tile.core_last - tile.first)
                ranges = [(0, tile.frames)] * config.wn.n_layers + [core]
                jobs.append(machine.job(flow, work, inputs, ranges))
            planes = planes[::-1]
        held = (work, planes, source, axis)
        if whole:
            machine.dispatch(jobs, *held)
            return planes[0]
        for index, tile in enumerate(cuts * config.n_flows):
            if index == 0 or len(cuts) > 1:
                fill_upsampled(source, self._plan, axis, tile, mel, lengths)
            machine.dispatch([jobs[index]], *held)
        return planes[0]
