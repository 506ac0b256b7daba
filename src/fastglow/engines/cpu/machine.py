"""One plan's machine code and packed weights, and the jobs that run them on any buffers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.engines.base import Float32, padded
from fastglow.engines.cpu.byte_layers import BOUNDS
from fastglow.engines.cpu.context import Job, Stage
from fastglow.engines.cpu.jit import Precision, compile_flow, host, yield_address
from fastglow.engines.cpu.pack import PackedFlow, aligned, pack_flow
from fastglow.engines.cpu.store import Store
from fastglow.engines.cpu.threads import available_threads
from fastglow.plan import Plan

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Work:
    """What one flow works on while it runs over some frames.

    Attributes:
        streams: [P, C, pitch] each, the residual streams.
        outputs: [P, n padded, pitch] each, the output rows.
        frames: How many there is room for.
        guard: Frames before frame 0 and, at least, after the last.
        pitch: Floats of a row.
    """

    streams: tuple[Float32, ...]
    outputs: tuple[Float32, ...]
    frames: int
    guard: int
    pitch: int


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run of frames reads beside the weights, and writes.

    Attributes:
        mel: [1 or P, rows, pitch], what the conditioning multiplies.
        mel_frame: Where frame 0 is in a row of it.
        mask: [pitch of the audio], 1 inside utterances.
        audio: Two of [P, n_group, pitch], to read and to write.
        audio_frame: Where frame 0 is in a row of them, and in the mask.
    """

    mel: Float32
    mel_frame: int
    mask: Float32
    audio: tuple[Float32, Float32]
    audio_frame: int


class Machine:
    """Packs a plan's weights, makes the machine code, and runs it on all threads.

    Attributes:
        shape: The register tile.
        threads: How many run a job.
        phases: P, or 1 where a mel frame is no whole number of steps.
        flows: The packed flows, flow 0 first.
    """

    def __init__(self, plan: Plan, precision: Precision, threads: int | None) -> None:
        config = plan.config
        self.config = config
        self.threads = threads or available_threads()
        self.shape = host().shape(precision)
        self._flow = compile_flow(config.wn.kernel_size, precision)
        self.mel_rows, self._mel_taps = config.n_mel_channels, config.mel_taps
        if plan.conditioning == "published":
            self.mel_rows, self._mel_taps = self.mel_rows * config.n_group, 1
        self.flows = self._packed(plan)
        self.channels = padded(config.wn.n_channels, self.shape.rows)
        self.phases = config.phases if config.has_phases else 1
        self._output_rows = max(flow.output_rows for flow in self.flows)
        self._zeros = aligned((self.shape.block,))
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="fastglow-cpu")

    def _packed(self, plan: Plan) -> list[PackedFlow]:
        """The flows' weights, from the disk if they were packed before."""
        store = Store(plan, self.shape)
        flows = store.load(self.threads)
        if flows is None:
            count = plan.config.n_flows
            flows = [pack_flow(plan.flow(k), self.mel_rows, self.shape) for k in range(count)]
            store.save(flows)
        return flows

    def work(self, frames: int, guard: int, streams: int, outputs: int) -> Work:
        """Buffers of zeros for runs of at most so many frames."""
        pitch = padded(guard + frames + guard + self.shape.block, 16) | 16
        # An odd number of cache lines: no two rows collide.
        wide, narrow = (self.phases, self.channels, pitch), (self.phases, self._output_rows, pitch)
        return Work(
            tuple(aligned(wide) for _ in range(streams)),
            tuple(aligned(narrow) for _ in range(outputs)),
            frames,
            guard,
            pitch,
        )

    def job(
        self, flow: PackedFlow, work: Work, inputs: Inputs, ranges: Sequence[tuple[int, int]]
    ) -> list[Int64]:
        """One flow over a run of frames.

        Args:
            flow: Which.
            work: Layer i writes stream i and output i, counted round; it reads what the layer
                before it wrote.
            inputs: What else it reads, and where the audio goes.
            ranges: Frames [first, last) that each layer computes, then those of the coupling.

        Returns:
            The arrays to hand to :meth:`dispatch`, the job first.
        """
        config = self.config
        half, at = flow.channels // 2, config.n_group - flow.channels
        longest = max(last - first for first, last in ranges)
        chunks = max(1, -(-4 * self.threads // self.phases))
        chunk = padded(-(-longest // chunks), self.shape.block)
        stages = self._stages(work, ranges)
        counters = np.zeros((config.wn.n_layers + 1, 16), dtype=np.int64)
        values = {
            Job.PHASES: self.phases,
            Job.CHUNKS: -(-longest // chunk),
            Job.CHUNK: chunk,
            Job.PITCH: work.pitch,
            Job.GUARD: work.guard,
            Job.CHANNELS: self.channels,
            Job.LAYERS: config.wn.n_layers,
            Job.GIVEN_ROWS: half,
            Job.AUDIO_ROWS: flow.channels,
            Job.GROUP_ROWS: config.n_group,
            Job.GIVEN_AT: at + (half if flow.swapped else 0),
            Job.CHANGED_AT: at + (0 if flow.swapped else half),
            Job.FLOW_AT: at,
            Job.AUDIO_PITCH: inputs.audio[0].shape[2],
            Job.AUDIO_FRAME: inputs.audio_frame,
            Job.MEL_ROWS: self.mel_rows,
            Job.MEL_TAPS: self._mel_taps,
            Job.MEL_PITCH: inputs.mel.shape[2],
            Job.MEL_FRAME: inputs.mel_frame,
            Job.MEL_PHASE: inputs.mel[0].size if len(inputs.mel) > 1 else 0,
            Job.MEL: inputs.mel.ctypes.data,
            Job.MASK: inputs.mask.ctypes.data,
            Job.AUDIO_IN: inputs.audio[0].ctypes.data,
            Job.AUDIO_OUT: inputs.audio[1].ctypes.data,
            Job.OUTPUT_ROWS: flow.output_rows,
            Job.ZEROS: self._zeros.ctypes.data,
            Job.LAYER_TABLE: flow.table.ctypes.data,
            Job.STAGE_TABLE: stages.ctypes.data,
            Job.INVERSE: flow.inverse.ctypes.data,
            Job.COUNTERS: counters.ctypes.data,
            Job.YIELD: yield_address(),
        }
        job = np.zeros(len(Job), dtype=np.int64)
        job[list(values)] = list(values.values())
        return [job, stages, counters]

    @staticmethod
    def _stages(work: Work, ranges: Sequence[tuple[int, int]]) -> Int64:
        stages = np.zeros((len(ranges), len(Stage)), dtype=np.int64)
        streams = [s.ctypes.data for s in work.streams]
        outputs = [o.ctypes.data for o in work.outputs]
        for i, (first, last) in enumerate(ranges):
            stages[i, Stage.FIRST], stages[i, Stage.LAST] = first, last
            stages[i, Stage.INPUT] = streams[(i - 1) % len(streams)]
            stages[i, Stage.RESULT] = streams[i % len(streams)]
            stages[i, Stage.SUMS] = outputs[(i - 1) % len(outputs)]
            stages[i, Stage.OUTPUT] = outputs[i % len(outputs)]
        return stages

    def dispatch(self, jobs: Sequence[Sequence[Int64]], *buffers: Any) -> None:
        """Let every thread walk through all jobs; they share the tasks of each.

        ``work`` holds the jobs and the buffers, so that they outlive a thread that is still
        computing when the caller is interrupted. A helper that never starts (in a forked child no
        thread of the pool is left) is no loss but of speed.
        """
        stop = threading.Event()
        floats = self._scratch_floats()

        def work(held: Sequence[Any] = buffers) -> None:
            scratch = aligned((floats,))
            for job, *_ in jobs:
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
        taps = config.wn.kernel_size * max(self.channels, config.n_group // 2 + 2)
        rows = taps + self.mel_rows * self._mel_taps + self.channels + BOUNDS
        return rows * self.shape.block + config.n_group * self.shape.lanes
