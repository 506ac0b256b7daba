"""The launches of a push: all flows over the new frames of a stream.

A flow looks D frames to both sides, so of its input it reads the n new frames and 2 D older ones,
and it makes n new frames of the next flow's input, at most D behind its own. Its layers compute all
n + 2 D: on Hopper the time of short inputs hardly depends on their length, so the 16 of a published
model come for little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from fastglow.engines.base import Float32
from fastglow.engines.cuda.inbox import Inbox, Mark
from fastglow.engines.cuda.layers import Buffers, Call, Layers
from fastglow.engines.cuda.pack import PackedFlow, Packer
from fastglow.kernels.coupling import coupling, prepare
from fastglow.kernels.latent import collect, frames, spread
from fastglow.kernels.request import WORDS, words
from fastglow.noise import SeededNoise


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the flows of a stream look and lag, in frames.

    Attributes:
        delays: Of each flow, in the order in which they run: how far it is behind its input.
        history: 2 D, how many older frames each reads again.
        before: How many older frames of mel a window reads.
    """

    delays: tuple[int, ...]
    history: int
    before: int

    @property
    def lags(self) -> tuple[int, ...]:
        """[F + 1], how far behind the mel the input of each flow is, and the audio."""
        return tuple(accumulate(self.delays, initial=0))

    @property
    def lookahead(self) -> int:
        """How far the audio is behind the mel."""
        return sum(self.delays)

    @property
    def mel(self) -> int:
        """How many older frames of mel a push reads."""
        return self.lookahead + self.history + self.before


class Push:
    """Buffers and launches for pushes of at most so many frames.

    Attributes:
        frames: At most.
        calls: The launches; before them :meth:`give`, after them :meth:`fetch` and :meth:`take`.
        products: Precision of the layers' products.
        window: K, columns of the conditioning.
        planes: [F + 1, P, G, N] float32, the input of each flow, and the audio; the first 2 D
            places hold older frames, and only those of the first flow are found anew.
        mel: Flat, frame by frame, what the conditioning multiplies.
        inbox: What comes from the host.
    """

    def __init__(
        self,
        packer: Packer,
        flows: Sequence[PackedFlow],
        layers: Layers,
        buffers: Buffers,
        reach: Reach,
    ) -> None:
        """Take the memory.

        Args:
            packer: What packed the flows.
            flows: In the order in which they run.
            layers: How a layer runs.
            buffers: What a flow works on; planes, mel and masks are the push's own.
            reach: Of the stream.
        """
        phases, group, places = buffers.planes.shape
        device, config = buffers.planes.device, packer.plan.config
        self._packer, self._flows, self._layers = packer, flows, layers
        self._buffers, self._reach, self._size = buffers, reach, phases * group
        self.frames = places - reach.history
        self.products, self.window = packer.products, packer.window
        self.planes = torch.zeros(len(flows) + 1, phases, group, places, device=device)
        samples = self.frames * self._size
        self._audio = torch.zeros(samples + samples % 2 + 2, device=device)  # the flag is last
        self._heard = torch.zeros(len(self._audio), pin_memory=device.type == "cuda")
        self._fetched = Mark(device)
        self._wide = reach.mel + self.frames
        self.inbox = Inbox(
            {
                "request": ((WORDS + 1,), torch.int64),
                "mel_request": ((WORDS,), torch.int64),
                "within": ((places,), torch.int64),
                "target": ((places,), torch.int64),
                "mask": ((len(flows) + 1, places), torch.float32),
                "bits": ((len(flows) + 1, places // 8), torch.uint8),
                "mel": ((config.n_mel_channels, self._wide), torch.float32),
            },
            device,
        )
        self._first = torch.arange(self._wide, device=device) * self._size
        self._zeros = torch.zeros(self._wide, dtype=torch.int64, device=device)
        rows, width = 1, packer.bands
        if packer.plan.conditioning == "published":
            rows, width = phases, packer.window
        self._strides = (self._wide * width if rows > 1 else 0, width)
        length = rows * self._wide * width + packer.window  # the last windows end past the last row
        self.mel = torch.zeros(length, dtype=buffers.given.dtype, device=device)
        self.calls = list(self._launches())

    def give(self, noise: SeededNoise, come: int, new: int, total: int) -> None:
        """Say where the new frames stand; the inbox's mel must be there, the inbox waited for.

        Args:
            noise: Of the utterance.
            come: Frames before them.
            new: How many they are.
            total: Of the utterance.
        """
        host, history = self.inbox.host, self._reach.history
        lags = np.array(self._reach.lags)[:, None]
        place = np.arange(self.planes.shape[3])
        frame = come - history - lags + place  # of the utterance, in each flow's input
        inside = (frame >= 0) & (frame < total) & (place < history + new)
        host["mask"][:] = inside
        host["bits"][:] = np.packbits(inside, axis=1, bitorder="little")
        host["within"][:] = np.where(inside[0], place * self._size, -1)
        fresh = inside[-1] & (place >= history)
        host["target"][:] = np.where(fresh, (place - history) * self._size, -1)
        found, zeros = self.inbox.device, self._zeros
        common: dict[str, Any] = {
            "mel": found["mel"][None],
            "noise": None,
            "audio": self._audio[None, :-2],
            "flag": self._audio[-2:].view(torch.int64),
            "call": 1,  # of all: the flag is cleared with the audio
            "target": found["target"],
            "row": zeros,
            "piece": zeros,
        }
        start = noise.start + (come - history) * self._size
        request = words(
            **common, within=found["within"], seeds=noise.seeds, sigma=noise.sigma, start=start
        )
        host["request"][:] = request
        host["mel_request"][:] = words(**common, within=self._first)
        self.inbox.send()

    def fetch(self) -> None:
        """Have the audio brought to the host once it is computed; what was taken is overwritten."""
        self._heard.copy_(self._audio, non_blocking=True)
        self._fetched.record()

    def take(self) -> tuple[Float32, bool]:
        """The audio [samples] of :attr:`frames` frames that was fetched, and whether it is bad.

        Bad is what holds a sample that is not finite.
        """
        self._fetched.wait()
        heard: Float32 = self._heard.numpy()
        return heard[:-2], bool(heard[-2:].view(np.int64)[0])

    def _launches(self) -> Iterator[Call]:
        found, packer, b = self.inbox.device, self._packer, self._buffers
        config = packer.plan.config
        yield self._clear
        if packer.plan.conditioning == "phases":  # else the upsampled mel is there already
            yield partial(
                frames,
                found["mel_request"],
                self.mel,
                places=self._wide,
                mels=config.n_mel_channels,
                bands=packer.bands,
                size=self._size,
                before=0,
                products=packer.products,
            )
        yield partial(spread, found["request"], self.planes[0])
        first = self._flows[0]
        yield partial(
            prepare,
            self.planes[0],
            found["mask"][0],
            b.given,
            channels=first.channels,
            swapped=first.swapped,
            products=packer.products,
        )
        for k, flow in enumerate(self._flows):
            ahead = self._reach.lookahead - self._reach.lags[k]
            here = replace(
                b,
                mel=self.mel[ahead * self._strides[1] :],
                mel_strides=self._strides,
                mask=found["mask"][k],
                bits=found["bits"][k],
            )
            yield from self._layers.prepare(flow, here)
            yield self._coupling(k)
        yield partial(collect, found["request"], self.planes[-1])

    def _clear(self) -> None:
        self._audio.zero_()

    def _coupling(self, k: int) -> Call:
        flow, following = self._flows[k], [*self._flows, None][k + 1]
        return partial(
            coupling,
            self._buffers.out,
            flow.output_bias,
            flow.inverse,
            self.planes[k],
            self.inbox.device["mask"][k + 1],
            self._buffers.given,
            channels=flow.channels,
            swapped=flow.swapped,
            next_channels=following.channels if following else 0,
            next_swapped=following.swapped if following else False,
            products=self._packer.products,
            after=self.planes[k + 1],
            shift=self._reach.delays[k],
            kept=self._reach.history,
        )
