"""Speech for training: recordings as one array in device memory, and random segments of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def respeed(wave: Tensor, ratio: float, block: int = 4096) -> Tensor:
    """Play a recording at ``ratio`` times its length: pitch and formants move by 1 / ratio.

    The whole spectrum is cut or extended, on a length padded to ``block`` so that few sizes of
    transform occur.

    Args:
        wave: [samples] int16.
        ratio: New length over old.
        block: Samples to pad to a multiple of.
    """
    size = -(-wave.shape[0] // block) * block
    new = round(size * ratio)
    spectrum = torch.fft.rfft(wave.float(), n=size)
    moved: Tensor = torch.fft.irfft(spectrum[: new // 2 + 1], n=new) * (new / size)
    moved = moved[: round(wave.shape[0] * ratio)].round().clamp(-32768, 32767)
    return moved.to(torch.int16)


class Segments:
    """Random segments of recordings, drawn where the recordings lie.

    A draw depends on the generator alone, so that a resumed run sees the same segments.

    Args:
        waves: Recordings, int16.
        segment: Samples of a segment.
        margin: Further samples on both sides, for the STFT's frames; beyond a recording's ends
            they mirror it, as centred analysis does.
        weights: How often to draw a sample of each recording, relative to the others.
        device: Where to keep them.
    """

    def __init__(
        self, waves: Sequence[Tensor], segment: int, margin: int,
        weights: Sequence[float] | None = None, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.length = segment + 2 * margin
        padded = [self._pad(w.to(device), segment, margin) for w in waves]
        self.wave = torch.cat(padded)
        starts = torch.tensor([len(w) - self.length + 1 for w in padded], dtype=torch.float64)
        sizes = torch.tensor([len(w) for w in padded], dtype=torch.int64)
        self.first = (sizes.cumsum(0) - sizes).to(device)
        self.starts = starts.to(device)
        share = starts * torch.tensor(
            [1.0] * len(padded) if weights is None else list(weights), dtype=torch.float64
        )
        self.edges = (share.cumsum(0) / share.sum()).to(device)

    @staticmethod
    def _pad(wave: Tensor, segment: int, margin: int) -> Tensor:
        missing = max(0, segment - wave.shape[0], margin + 1 - wave.shape[0])
        wave = torch.cat([wave, wave.new_zeros(missing)])
        return torch.cat([wave[1 : margin + 1].flip(0), wave, wave[-margin - 1 : -1].flip(0)])

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """A batch of segments with their margins: [batch, segment + 2 * margin], in [-1, 1)."""
        device = self.wave.device
        u = torch.rand(2, batch, dtype=torch.float64, device=device, generator=generator)
        file = torch.searchsorted(self.edges, u[0]).clamp(max=len(self.edges) - 1)
        start = self.first[file] + (u[1] * self.starts[file]).long()
        index = start[:, None] + torch.arange(self.length, device=device)
        return self.wave[index].float() / 32768
