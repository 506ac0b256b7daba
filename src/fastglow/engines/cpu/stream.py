"""Streaming on the CPU: each layer goes on where it stopped, so nothing is computed twice.

A flow is ``delay`` frames behind the one before it, its right halo. Of a push of n new frames each
layer computes as much as its input reaches: the frames whose last steps still lacked neighbours,
and n minus what the layers after it do not need yet. What later layers and pushes read again, a few
frames of every layer's input and output, is kept in between (0.9 MB a flow at 64 channels).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fastglow.config import WaveGlowConfig
from fastglow.engines.base import NO_PHASES, NOT_FINITE, Float32, delays_of
from fastglow.engines.cpu.machine import Inputs, Machine, Work
from fastglow.engines.cpu.pack import PackedFlow, aligned
from fastglow.engines.cpu.source import Conditioning
from fastglow.errors import EngineError, InputError
from fastglow.noise import SeededNoise
from fastglow.plan import Plan

WIDEST = 1 << 22  # numbers of one layer's stream at a time: 16 MB
ENDLESS = 1 << 60  # frames, of an utterance whose end is not known yet


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the layers of a flow look, in frames.

    Attributes:
        behind: [L], how far before the end of the flow's input each layer goes on the next time.
        ahead: [L], how far past the last frame of the flow's output each layer is needed.
        needed: [L], of what each layer made, how much the next one reads again.
        history: How far before the end of the last input anything is read.
    """

    behind: tuple[int, ...]
    ahead: tuple[int, ...]
    needed: tuple[int, ...]
    history: int

    @classmethod
    def of(cls, config: WaveGlowConfig) -> Reach:
        """From the dilations."""
        half, phases, layers = config.wn.kernel_size // 2, config.phases, config.wn.n_layers
        reaches = [half * (2 ** (i + 1) - 1) for i in range(layers)]  # steps, layers 0 to i
        behind = [-(-r // phases) for r in reaches]
        ahead = [-(-(reaches[-1] - r) // phases) for r in reaches]
        read = [b - (-half * 2**i // phases) for i, b in enumerate(behind)]
        needed = [after - made for after, made in zip([*read[1:], behind[-1]], behind, strict=True)]
        return cls(tuple(behind), tuple(ahead), tuple(needed), max(read))

    @property
    def delay(self) -> int:
        """Frames of input that a flow must have past a frame of its output."""
        return self.behind[-1]


class _Kept:
    """The end of what one flow read and its layers made, which the next push reads again."""

    def __init__(self, machine: Machine, flow: PackedFlow, reach: Reach) -> None:
        group, layers = machine.config.n_group, machine.config.wn.n_layers
        self.flow, self._reach = flow, reach
        streams = [machine.channels] * max(1, layers - 1)
        rows = [group, *streams, *[flow.output_rows] * layers]
        self._ends = [np.zeros((machine.phases, n, reach.history), np.float32) for n in rows]

    def restore(self, work: Work, audio: Float32) -> None:
        """Put it before the new frames."""
        for end, (plane, frames) in zip(self._ends, self._places(work, audio, 0), strict=True):
            plane[:, :, frames] = end[:, :, : frames.stop - frames.start]

    def save(self, work: Work, audio: Float32, new: int) -> None:
        """Take it from the end of a run over so many new frames."""
        for end, (plane, frames) in zip(self._ends, self._places(work, audio, new), strict=True):
            end[:, :, : frames.stop - frames.start] = plane[:, :, frames]

    def _places(self, work: Work, audio: Float32, new: int) -> Iterator[tuple[Float32, slice]]:
        """Each plane and where in it, in the next run's or (``new``) this run's frames."""
        at, reach = work.guard + new, self._reach
        yield audio, slice(at, at + reach.history)
        for made, needed, stream in zip(reach.behind, reach.needed, work.streams, strict=False):
            last = at + reach.history - made
            yield stream, slice(last - needed, last)
        after = (*reach.behind[1:], reach.delay)
        for made, reads, sums in zip(reach.behind, after, work.outputs, strict=True):
            yield (
                self.flow.rows_of(sums),
                slice(at + reach.history - reads, at + reach.history - made),
            )


class CpuStream:
    """One utterance whose mel comes in parts; use one of :meth:`CpuEngine.stream`.

    Attributes:
        lookahead: Frames that must have come past a frame before its audio is given.
    """

    def __init__(
        self, plan: Plan, machine: Machine, lock: threading.Lock, noise: SeededNoise,
        lookahead: int | None,
    ) -> None:  # fmt: skip
        config = plan.config
        if not config.has_phases:
            raise InputError(NO_PHASES)
        self._config, self._machine, self._lock, self._noise = config, machine, lock, noise
        self._reach = reach = Reach.of(config)
        self._delays = delays_of(config.n_flows, reach.delay, lookahead)
        self.lookahead = sum(self._delays)
        self._flows = [_Kept(machine, flow, reach) for flow in reversed(machine.flows)]
        self._conditioning = Conditioning(plan, machine, self.lookahead + reach.history)
        self._come, self._total = 0, ENDLESS  # frames of mel; all that there will be
        self._work: Work | None = None

    def push(self, mel: Float32) -> Float32:
        """See :class:`fastglow.engines.base.Stream`."""
        widest = max(16, WIDEST // (self._machine.phases * self._machine.channels))
        out = [np.zeros(0, np.float32)]
        for at in range(0, mel.shape[1], widest):
            part = mel[:, at : at + widest]
            out.append(self._advance(part, self._latents(part.shape[1])))
        return np.concatenate(out)

    def _latents(self, frames: int) -> Float32:
        """The noise of the next frames: [P, n_group, frames]."""
        size = self._config.samples(1)
        start = self._noise.start + self._come * size
        drawn = replace(self._noise, start=start).draw([frames * size], frames * size)
        return drawn.reshape(frames, self._machine.phases, -1).transpose(1, 2, 0)

    def finish(self) -> Float32:
        """See :class:`fastglow.engines.base.Stream`."""
        self._total, config = self._come, self._config
        if not self._total or not self.lookahead:
            return np.zeros(0, np.float32)
        empty = np.zeros((config.n_mel_channels, self.lookahead), np.float32)
        latent = np.zeros((self._machine.phases, config.n_group, self.lookahead), np.float32)
        return self._advance(empty, latent)

    def _advance(self, mel: Float32, planes: Float32) -> Float32:
        """All flows over new frames, whose latents [P, n_group, frames] are given."""
        new, end = mel.shape[1], self._come + mel.shape[1]
        first = self._come - self.lookahead
        with self._lock:
            self._conditioning.extend(mel)
            for kept, delay in zip(self._flows, self._delays, strict=True):
                planes = self._flow(kept, planes, end, delay)
                end -= delay
        self._come += new
        low, high = max(0, -first), min(new, self._total - first)
        audio = planes[:, :, low : max(low, high)].transpose(2, 0, 1).reshape(-1)
        if not np.isfinite(audio).all():
            raise EngineError(NOT_FINITE)
        return audio

    def _flow(self, kept: _Kept, planes: Float32, end: int, delay: int) -> Float32:
        """One flow over new frames of its input, the last of them ``end - 1``; its new output."""
        machine, reach, new = self._machine, self._reach, planes.shape[2]
        history, group = reach.history, machine.config.n_group
        start = end - new - history  # of the utterance stands at frame 0 of the run
        before, stop = max(0, -start), min(history + new, self._total - start)
        if stop <= history - delay or before >= history + new:
            return np.zeros_like(planes)  # outside the utterance
        work = self._room(history + new)
        whole = not before and stop == history + new and delay == reach.delay
        if not whole:  # what lies outside, or has not come, counts as zeros
            for plane in (*work.streams, *work.outputs):
                plane[...] = 0
        audio, out = (aligned((machine.phases, group, work.pitch)) for _ in range(2))
        mask = aligned((work.pitch,))
        mask[work.guard + before : work.guard + stop] = 1
        kept.restore(work, audio)
        audio[:, :, work.guard + history :][:, :, :new] = planes
        source, mel_frame = self._conditioning.at(start)
        inputs = Inputs(source, mel_frame, mask, (audio, out), work.guard)
        given = (history - delay, history - delay + new)
        if whole:
            ranges = [
                (history - behind, given[1] + ahead)
                for behind, ahead in zip(reach.behind, reach.ahead, strict=True)
            ]
        else:
            ranges = [(max(before, history - behind), stop) for behind in reach.behind]
        machine.dispatch([machine.job(kept.flow, work, inputs, [*ranges, given])], work, inputs)
        kept.save(work, audio, new)
        changed = group - kept.flow.channels  # the rows before it wait for a later flow
        both = np.concatenate([audio[:, :changed], out[:, changed:]], axis=1)
        return both[:, :, work.guard + given[0] : work.guard + given[1]]

    def _room(self, frames: int) -> Work:
        """Buffers for so many frames; those of the widest run so far serve narrower ones."""
        if self._work is None or self._work.frames < frames:
            config, reach = self._config, self._reach
            guard = reach.history + 1  # more than any tap reaches
            layers = config.wn.n_layers
            self._work = self._machine.work(frames, guard, max(1, layers - 1), layers)
        return self._work
