"""Streaming on a GPU: each flow goes on where it stopped, with a few frames of its input again.

256 channels in fp16 on an H100: a push of 8 frames takes 1.2 ms (p95 1.4), of 64 1.6, of 1,024 7.6,
where it costs 1.05 times as much a frame as 60 s at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import groupby
from operator import itemgetter
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fastglow.engines.base import NO_PHASES, NOT_FINITE, Float32, delays_of
from fastglow.engines.cuda.layers import Call
from fastglow.engines.cuda.push import Push, Reach
from fastglow.errors import EngineError, InputError
from fastglow.kernels.common import narrowed
from fastglow.noise import SeededNoise
from fastglow.plan import Plan
from fastglow.plan.upsample import Upsampling

WIDEST = 8192  # places at a time: launches cost nothing any more; 0.4 GB at 256 channels
ENDLESS = 1 << 40  # frames, of an utterance whose end is not known yet

Pushing = Callable[[int, Reach], AbstractContextManager[tuple[Push, Call]]]


def reach_of(plan: Plan, lookahead: int | None) -> Reach:
    """Of all flows of a model, with a lookahead in frames or, None, the whole."""
    config = plan.config
    delay = -(-plan.halo // config.phases)
    delays = delays_of(config.n_flows, delay, lookahead)
    before = config.mel_taps - 1 if plan.conditioning == "phases" else 0
    return Reach(delays, max(1, 2 * delay), before)


class CudaStream:
    """One utterance whose mel comes in parts; use one of :meth:`CudaEngine.stream`.

    Attributes:
        lookahead: Frames that must have come past a frame before its audio is given.
    """

    def __init__(
        self, plan: Plan, pushing: Pushing, noise: SeededNoise, lookahead: int | None
    ) -> None:
        """Nothing has come yet.

        Args:
            plan: The model.
            pushing: Gives the launches for so many frames, for one caller at a time.
            noise: Of the utterance.
            lookahead: See :meth:`fastglow.engines.base.Engine.stream`.
        """
        if not plan.config.has_phases:
            raise InputError(NO_PHASES)
        self._config, self._pushing, self._noise = plan.config, pushing, noise
        self._reach = reach_of(plan, lookahead)
        self.lookahead = self._reach.lookahead
        self._kept: Tensor | None = None  # [F - 1, P, G, 2 D], the ends of later flows' inputs
        self._mel = mel_history(plan, self._reach)
        self._come, self._total = 0, ENDLESS

    def push(self, mel: Float32) -> Float32:
        """See :class:`fastglow.engines.base.Stream`."""
        return self._all([(new, mel[:, at : at + new]) for at, new in self._cut(mel.shape[1])])

    def finish(self) -> Float32:
        """See :class:`fastglow.engines.base.Stream`."""
        self._total = self._come
        left = self.lookahead if self._come else 0
        return self._all([(new, None) for _, new in self._cut(left)])

    def _cut(self, frames: int) -> Iterator[tuple[int, int]]:
        """Where each push of so many frames begins, and how wide it is: all but one alike.

        With the older frames that a push reads again it is at most a full bucket wide: pushes of
        8,192 frames and 16 older ones had 3 % more places.
        """
        if frames:
            most = max(1, WIDEST - self._reach.history)
            wide = -(-frames // -(-frames // most))
            yield from ((at, min(wide, frames - at)) for at in range(0, frames, wide))

    def _given(self, come: int) -> int:
        """Frames whose audio is known when so many have come."""
        return min(max(0, come - self.lookahead), self._total)

    def _all(self, parts: list[tuple[int, Float32 | None]]) -> Float32:
        """The audio that so many new frames each bring; None: these frames lie past the end."""
        frames = self._given(self._come + sum(new for new, _ in parts)) - self._given(self._come)
        audio = np.empty(self._config.samples(frames), np.float32)
        left = audio
        for new, alike in groupby(parts, key=itemgetter(0)):
            for heard in self._advance(new, [mel for _, mel in alike]):
                left[: len(heard)] = heard
                left = left[len(heard) :]
        return audio

    def _advance(self, new: int, mels: list[Float32 | None]) -> Iterator[Float32]:
        """All flows over so many new frames of each mel; while one runs, the one before is told."""
        size = self._config.samples(1)
        with self._pushing(new, self._reach) as (push, run):
            known: slice | None = None
            for mel in mels:
                self._begin(push, run, mel, new)
                if known:
                    yield _told(push, known)
                push.fetch()
                first = self._come - new - self.lookahead
                low, high = (self._given(self._come - back) - first for back in (new, 0))
                known = slice(low * size, high * size)
            if known:
                yield _told(push, known)

    def _begin(self, push: Push, run: Call, mel: Float32 | None, new: int) -> None:
        history = self._reach.history
        later = push.planes[1:-1]
        later[..., :history] = 0 if self._kept is None else self._kept
        push.inbox.wait()
        self._mel.give(push, mel, new)
        push.give(self._noise, self._come, new, self._total)
        run()
        self._kept = later[..., new : new + history].clone()
        self._come += new


def _told(push: Push, which: slice) -> Float32:
    """The samples that were fetched, until others are.

    Raises:
        EngineError: Some are not finite.
    """
    audio, bad = push.take()
    if bad:
        raise EngineError(NOT_FINITE)
    return audio[which]


class MelHistory(Protocol):
    """The mel's last frames, in the form that the conditioning reads."""

    def give(self, push: Push, mel: Float32 | None, new: int) -> None:
        """Put them and the new ones into the push; None is silence past the end."""
        ...


def mel_history(plan: Plan, reach: Reach) -> MelHistory:
    """Of nothing yet."""
    return _Frames(plan, reach) if plan.conditioning == "phases" else _Upsampled(plan, reach)


class _Frames:
    """The frames themselves."""

    def __init__(self, plan: Plan, reach: Reach) -> None:
        self._held = np.zeros((plan.config.n_mel_channels, reach.mel), np.float32)

    def give(self, push: Push, mel: Float32 | None, new: int) -> None:
        """See :class:`MelHistory`."""
        window, kept = push.inbox.host["mel"], self._held.shape[1]
        window[:, :kept] = self._held
        window[:, kept:] = 0
        if mel is not None:
            window[:, kept : kept + new] = mel
        self._held = window[:, new : new + kept].copy()


class _Upsampled:
    """The published upsampling: [P, frames, K] on the device."""

    def __init__(self, plan: Plan, reach: Reach) -> None:
        self._phases, self._kept = plan.config.phases, reach.mel
        self._upsampling = Upsampling(plan)
        self._held: Tensor | None = None

    def give(self, push: Push, mel: Float32 | None, new: int) -> None:
        """See :class:`MelHistory`."""
        width, kept = push.window, self._kept
        window = push.mel[:-width].view(self._phases, -1, width)
        window[:, :kept] = 0 if self._held is None else self._held
        window[:, kept:] = 0
        if mel is not None:
            columns = torch.from_numpy(self._upsampling.extend(mel))
            steps = columns.T.reshape(new, self._phases, -1).transpose(0, 1)
            rounded = narrowed(steps, push.products)
            window[:, kept : kept + new, : len(columns)] = rounded.to(window.device)
        self._held = window[:, new : new + kept].clone()
