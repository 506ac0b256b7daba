"""A loss on what a network does that repeats itself every hop: hum where there should be noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastglow.errors import InputError
from fastglow.training.losses import magnitude

HOPS = 16  # in a window: the multiples of rate / hop are so many bins apart
BANDS = 8  # over which levels are averaged


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
