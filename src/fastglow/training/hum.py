"""Losses on what a network does that repeats itself: a hum every hop, whistles every group."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastglow.errors import InputError
from fastglow.training.losses import magnitude

HOPS = 16  # in a window: the multiples of rate / hop are so many bins apart
BANDS = 8  # over which levels are averaged
WINDOW = 4096  # samples, about, in which whistles are looked for, as `fastglow evaluate` does
WHISTLES = 3
NEAR, FAR = 3, 24  # bins from a whistle to what it is compared with


class HumLoss(nn.Module):
    """How much more, or less, generated audio stands out at the multiples of rate / hop.

    Log magnitudes less their mean over rate / hop, by place within it, averaged over the batch, the
    frames and an eighth of the spectrum: flat for noise, and for a batch of recordings. The loss is
    the L1 distance of that of generated audio from that of recorded.

    Args:
        hop: Samples a mel frame, a multiple of 16.

    Raises:
        InputError: It is none.
    """

    def __init__(self, hop: int) -> None:
        super().__init__()
        if hop * HOPS // 2 % (HOPS * BANDS):
            raise InputError(f"train.loss.hum needs a hop that is a multiple of 16, not {hop}")
        self.hop = hop
        self.register_buffer("window", torch.hann_window(HOPS * hop), persistent=False)

    def forward(self, generated: Tensor, target: Tensor) -> Tensor:
        """The distance, in nats, for [B, samples] of at least 16 hops each."""
        with torch.no_grad():
            expected = self.profile(target)
        return (self.profile(generated) - expected).abs().mean()

    def profile(self, signal: Tensor) -> Tensor:
        """Mean log level by band and by place within rate / hop: [BANDS, HOPS]."""
        spectrum = magnitude(signal, self.get_buffer("window"), HOPS // 4 * self.hop)
        levels = spectrum[:, :, 1:].log()
        batch, frames, bins = levels.shape
        levels = levels.reshape(batch, frames, BANDS, bins // (BANDS * HOPS), HOPS)
        return (levels - levels.mean(dim=-1, keepdim=True)).mean(dim=(0, 1, 3))


class WhistleLoss(nn.Module):
    """How much more, or less, generated audio stands out at the first multiples of rate / group.

    They are among the multiples of rate / hop, but of these there are many (128 at a hop of 256),
    and :class:`HumLoss` takes them together. Here a segment's power is averaged over its frames,
    and its log on the line, less the mean log on the bins 3 to 24 off, over the batch, in which
    quiet segments so count like loud ones: it should be what it is in the recordings.

    Args:
        group: Samples a step of the network.

    Raises:
        InputError: No multiple of rate / group lies far enough below half the rate.
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        size = WINDOW - WINDOW % (4 * group)  # so that bins fall on the lines, and the hop is whole
        lines = torch.arange(1, WHISTLES + 1) * (size // group)
        lines = lines[lines + FAR <= size // 2]
        if not len(lines):
            raise InputError(f"train.loss.whistles needs an n_group of 4 or more, not {group}")
        # A product, because its gradient adds in a fixed order.
        contrast = torch.zeros(size // 2 + 1, len(lines))
        for i, line in enumerate(lines.tolist()):
            contrast[line, i] = 1.0
            for side in (line - FAR, line + NEAR):
                contrast[side : side + FAR - NEAR + 1, i] = -0.5 / (FAR - NEAR + 1)
        self.register_buffer("contrast", contrast, persistent=False)
        self.register_buffer("window", torch.hann_window(size), persistent=False)

    def forward(self, generated: Tensor, target: Tensor) -> Tensor:
        """The distance, in nats of magnitude, for [B, samples] of at least 4096 each."""
        with torch.no_grad():
            expected = self.excess(target)
        return (self.excess(generated) - expected).abs().mean()

    def excess(self, signal: Tensor) -> Tensor:
        """How far each line stands out of what is around it: [lines]."""
        window = self.get_buffer("window")
        power = magnitude(signal, window, len(window) // 4).square().mean(dim=1).log()
        return 0.5 * (power @ self.get_buffer("contrast")).mean(dim=0)
