"""The CPU engine: places a batch on one frame axis, cuts it into tiles, runs flow by flow.

Every row of a batch stands on the same axis with a gap of zeros between rows, so a batch is
only a longer utterance: the weights are read once for all rows, and no row can touch another.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.engines.base import Float32, Noise, padded
from fastglow.engines.cpu.axis import Axis, Tile, tiles
from fastglow.engines.cpu.context import Job
from fastglow.engines.cpu.jit import Precision, compile_flow, host, yield_address
from fastglow.engines.cpu.pack import PackedFlow, aligned, pack_flow
from fastglow.engines.cpu.source import fill_upsampled, mel_plane
from fastglow.engines.cpu.store import Store
from fastglow.engines.cpu.threads import available_threads
from fastglow.errors import EngineError
from fastglow.noise import SeededNoise
from fastglow.plan import Plan

Int64 = NDArray[np.int64]
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
            precision: "fp32", or "bf16" (products of bfloat16, sums and coupling in fp32).
            threads: How many; by default what the affinity and the container's quota allow.

        Raises:
            EngineError: The processor lacks the precision, or LLVM cannot make code for it.
        """
        self.precision = precision
        self.config, self.conditioning = plan.config, plan.conditioning
        self.threads = threads or available_threads()
        self._plan = plan
        self._shape = host().shape(precision)
        self._flow = compile_flow(plan.config.wn.kernel_size, precision)
        self._mel_rows, self._mel_taps = plan.config.n_mel_channels, plan.config.mel_taps
        if plan.conditioning == "published":
            self._mel_rows, self._mel_taps = self._mel_rows * plan.config.n_group, 1
        self._flows = self._packed(plan)
        self._channels = padded(plan.config.wn.n_channels, self._shape.rows)
        self._phases = plan.config.phases if plan.config.has_phases else 1
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="fastglow-cpu")
        self.description = (
            f"cpu {precision}, {self.threads} threads, {host().name} "
            f"({self._shape.lanes} lanes), {self.conditioning} conditioning"
        )

    def _packed(self, plan: Plan) -> list[PackedFlow]:
        """The flows' weights, from the disk if they were packed before."""
        store = Store(plan, self._shape)
        flows = store.load(self.threads)
        if flows is None:
            count = plan.config.n_flows
            flows = [pack_flow(plan.flow(k), self._mel_rows, self._shape) for k in range(count)]
            store.save(flows)
        return flows

    def warm(self) -> None:
        """Nothing is left to do: the machine code was made, or read from its cache, at load."""

    def infer(self, mel: Float32, noise: Noise, lengths: Sequence[int]) -> Float32:
        """See :class:`fastglow.engines.base.Engine`."""
        config, shape = self.config, self._shape
        if isinstance(noise, SeededNoise):
            counts = [config.samples(n) for n in lengths]
            noise = noise.draw(counts, config.samples(mel.shape[2]))
        reach = config.wn.kernel_size // 2 * 2 ** (config.wn.n_layers - 1)
        axis = Axis.place(
            [self._positions(n) for n in lengths],
            gap=max(-(-reach // self._phases) + 1, self.config.mel_taps),
            halo=-(-self._plan.halo // self._phases),
            block=shape.block,
        )
        with self._lock:
            first = self._audio_planes(axis, noise, lengths)
            last = self._run(axis, mel, lengths, (first, first.copy()))
        audio = self._collect(axis, last, noise.shape, lengths)
        if not np.isfinite(audio).all():
            raise EngineError(
                "the audio holds values that are not finite; the mel may be far outside the "
                "model's range (run `fastglow doctor` on it)"
            )
        return audio

    def _positions(self, frames: int) -> int:
        """Places on the axis: frames, or steps when a frame is no whole number of steps."""
        return frames if self.config.has_phases else self.config.steps(frames)

    def _audio_planes(self, axis: Axis, noise: Float32, lengths: Sequence[int]) -> Float32:
        """The scaled noise as [P, n_group, pitch]: every latent channel where it will be used."""
        group = self.config.n_group
        planes = aligned((self._phases, group, axis.pitch))
        for row, (at, count) in enumerate(axis.rows):
            samples = noise[row, : self.config.samples(lengths[row])]
            view = samples.reshape(count, self._phases, group)
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
        config, shape = self.config, self._shape
        widest = TILE_FLOATS // (self._phases * self._channels)
        cuts = tiles(axis, max(widest, 4 * axis.halo, 2 * shape.block))
        pitch = axis.guard + cuts[0].frames + axis.guard + shape.block
        pitch = padded(pitch, 16) | 16  # an odd number of cache lines: no two rows collide
        rows = max(flow.output_rows for flow in self._flows)
        whole = self.conditioning == "phases"
        plane = (self._phases, self._mel_rows, pitch)
        source = mel_plane(axis, mel) if whole else aligned(plane)
        streams = [aligned((self._phases, self._channels, pitch)) for _ in range(2)]
        output, zeros = aligned((self._phases, rows, pitch)), aligned((shape.block,))
        counters = np.zeros((config.n_flows * len(cuts), config.wn.n_layers + 1, 16), np.int64)
        buffers: list[NDArray[Any]] = [
            *planes,
            source,
            axis.mask,
            *streams,
            output,
            zeros,
            counters,
        ]
        jobs: list[Int64] = []
        for flow in reversed(self._flows):
            for tile in cuts:
                job = self._job(flow, axis, tile, pitch)
                job[Job.MEL] = source.ctypes.data
                job[Job.MEL_PHASE] = 0 if whole else source[0].size
                job[Job.MEL_PITCH] = axis.pitch if whole else pitch
                job[Job.MEL_FRAME] = tile.first if whole else axis.guard
                job[Job.MASK] = axis.mask.ctypes.data
                job[Job.AUDIO_IN], job[Job.AUDIO_OUT] = (p.ctypes.data for p in planes)
                job[Job.STREAM_A], job[Job.STREAM_B] = (s.ctypes.data for s in streams)
                job[Job.OUTPUT], job[Job.ZEROS] = output.ctypes.data, zeros.ctypes.data
                job[Job.COUNTERS] = counters[len(jobs)].ctypes.data
                jobs.append(job)
            planes = planes[::-1]
        if whole:
            self._dispatch(jobs, buffers)
            return planes[0]
        for index, tile in enumerate(cuts * config.n_flows):
            if index == 0 or len(cuts) > 1:
                fill_upsampled(source, self._plan, axis, tile, mel, lengths)
            self._dispatch([jobs[index]], buffers)
        return planes[0]

    def _job(self, flow: PackedFlow, axis: Axis, tile: Tile, pitch: int) -> Int64:
        """The numbers of one flow over one tile, its weights, and the system's yield."""
        config, block = self.config, self._shape.block
        half, at = flow.channels // 2, config.n_group - flow.channels
        chunks = max(1, -(-4 * self.threads // self._phases))
        chunk = padded(-(-tile.frames // chunks), block)
        values = {
            Job.PHASES: self._phases,
            Job.FRAMES: tile.frames,
            Job.CORE_FIRST: tile.core_first - tile.first,
            Job.CORE_LAST: tile.core_last - tile.first,
            Job.CHUNKS: -(-tile.frames // chunk),
            Job.CHUNK: chunk,
            Job.PITCH: pitch,
            Job.GUARD: axis.guard,
            Job.CHANNELS: self._channels,
            Job.LAYERS: config.wn.n_layers,
            Job.GIVEN_ROWS: half,
            Job.AUDIO_ROWS: flow.channels,
            Job.GROUP_ROWS: config.n_group,
            Job.GIVEN_AT: at + (half if flow.swapped else 0),
            Job.CHANGED_AT: at + (0 if flow.swapped else half),
            Job.FLOW_AT: at,
            Job.AUDIO_PITCH: axis.pitch,
            Job.AUDIO_FRAME: tile.first,
            Job.MEL_ROWS: self._mel_rows,
            Job.MEL_TAPS: self._mel_taps,
            Job.OUTPUT_ROWS: flow.output_rows,
            Job.LAYER_TABLE: flow.table.ctypes.data,
            Job.INVERSE: flow.inverse.ctypes.data,
            Job.YIELD: yield_address(),
        }
        job = np.zeros(len(Job), dtype=np.int64)
        job[list(values)] = list(values.values())
        return job

    def _dispatch(self, jobs: list[Int64], buffers: Sequence[NDArray[Any]]) -> None:
        """Let every thread walk through all jobs; they share the tasks of each.

        ``work`` holds the buffers, so that they outlive a thread that is still computing when
        the caller is interrupted. A helper that never starts (in a forked child no thread of
        the pool is left) is no loss but of speed.
        """
        stop = threading.Event()
        floats = self._scratch_floats()

        def work(held: Sequence[NDArray[Any]] = buffers) -> None:
            scratch = aligned((floats,))
            for job in jobs:
                if stop.is_set():
                    return
                self._flow(job.ctypes.data, scratch.ctypes.data)

        helpers = [self._pool.submit(work) for _ in range(self.threads - 1)]
        try:
            work()
        except BaseException:
            stop.set()
            raise
        for helper in helpers:
            if not helper.cancel():
                helper.exception()

    def _scratch_floats(self) -> int:
        """Numbers that one thread needs for its panels and activations."""
        config = self.config
        taps = config.wn.kernel_size * max(self._channels, config.n_group // 2 + 2)
        rows = taps + self._mel_rows * self._mel_taps + self._channels
        return rows * self._shape.block + config.n_group * self._shape.lanes
