"""A flow made of the kernels: a row's bits depend on neither its neighbours nor its place."""

from __future__ import annotations

import pytest
import torch
from kernel_oracle import Target
from torch import Tensor

from fastglow.kernels.coupling import coupling, prepare
from fastglow.kernels.gate import gate
from fastglow.kernels.residual import residual

GROUP, WIDTH, MELS, FRAMES = 8, 64, 16, 4


class Flow:
    """Three layers of random weights and their coupling."""

    def __init__(self, target: Target, phases: int, channels: int) -> None:
        self.target, self.phases, self.channels = target, phases, channels
        self.gap = -(-4 // phases) + 1 + FRAMES

        def normal(*shape: int) -> Tensor:
            return (torch.randn(shape) * shape[-1] ** -0.5).to(target.dtype).to(target.device)

        self.gates = [normal(2 * channels, 3 * k) for k in (WIDTH, channels, channels)]
        self.conds = [normal(phases, 2 * channels, 64) for _ in range(3)]
        self.residuals = [normal(channels, channels) for _ in range(3)]
        self.outputs = [normal(GROUP, channels) for _ in range(3)]
        self.start = normal(channels, WIDTH)
        self.bias = torch.randn(3, 2 * channels).to(target.device)
        self.inverse = torch.linalg.qr(torch.randn(GROUP, GROUP))[0].to(target.device)

    def run(self, rows: list[tuple[Tensor, Tensor]], padding: int) -> list[Tensor]:
        """Planes [P, G, frames] and mel [frames, M] of rows side by side, through the flow."""
        at, places = [], self.gap
        for planes, _ in rows:
            at.append(places)
            places += planes.shape[2] + self.gap
        places += padding
        device, dtype, p, c = self.target.device, self.target.dtype, self.phases, self.channels
        held = torch.zeros(p, GROUP, places, device=device)
        mask = torch.zeros(places, device=device)
        mel = torch.zeros(places + 2 * FRAMES, MELS, dtype=dtype, device=device)
        for (planes, frames), first in zip(rows, at, strict=True):
            held[:, :, first : first + planes.shape[2]] = planes
            mask[first : first + planes.shape[2]] = 1
            mel[FRAMES - 1 + first : FRAMES - 1 + first + planes.shape[2]] = frames
        given = torch.full((p, places, WIDTH), torch.nan, dtype=dtype, device=device)
        acts = torch.full((p, places, c), torch.nan, dtype=dtype, device=device)
        streams = [torch.full_like(acts, torch.nan) for _ in range(2)]
        out = torch.full((1, p, GROUP, places), torch.nan, device=device)
        products: dict[str, str] = {"products": self.target.products}
        flow = {"channels": GROUP, "swapped": False, **products}
        prepare(held, mask, given, **flow)
        x = given
        for i in range(3):
            gate(x, self.gates[i], self.conds[i], mel.flatten(), (0, MELS), self.bias[i], 2**i,
                 acts, **products)  # fmt: skip
            residual(acts, x, self.residuals[i], self.bias[i, :c], self.outputs[i], mask,
                     streams[i % 2], out, start=None if i else self.start, first=i == 0,
                     last=i == 2, **products)  # fmt: skip
            x = streams[i % 2]
        coupling(out, self.bias[0, :GROUP], self.inverse, held, mask, given, **flow,
                 next_channels=GROUP, next_swapped=True)  # fmt: skip
        return [held[:, :, a : a + r[0].shape[2]] for a, r in zip(at, rows, strict=True)]


def row(flow: Flow, frames: int) -> tuple[Tensor, Tensor]:
    device = flow.target.device
    planes = torch.randn(flow.phases, GROUP, frames).to(device)
    return planes, torch.randn(frames, MELS).to(flow.target.dtype).to(device)


def compare(flow: Flow, lengths: list[int], padding: int) -> None:
    rows = [row(flow, frames) for frames in lengths]
    together = flow.run(rows, padding)
    for one, found in zip(rows, together, strict=True):
        (alone,) = flow.run([one], 0)
        assert alone.isfinite().all()
        assert not torch.equal(alone, one[0])
        assert torch.equal(found, alone)


@pytest.mark.parametrize("phases", [1, 2])
def test_rows_equal_their_solo_runs(phases: int, target: Target) -> None:
    compare(Flow(target, phases, 64), [63, 1, 7], padding=13)


def test_rows_of_a_long_batch_equal_their_solo_runs(gpu_target: Target) -> None:
    compare(Flow(gpu_target, 32, 256), [86, 860, 1, 430, 2000], padding=500)
