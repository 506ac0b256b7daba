"""Spectral losses between generated and recorded audio, at several resolutions.

They compare magnitudes only: the phase of speech does not follow from its mel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastglow.audio.mel import filter_bank
from fastglow.config import MelConfig
from fastglow.errors import InputError


def frame(signal: Tensor, size: int, hop: int) -> Tensor:
    """Overlapping frames, by views and one copy (its gradient adds in a fixed order).

    Args:
        signal: [B, samples].
        size: Samples of a frame, a multiple of hop.
        hop: Samples between frames.

    Returns:
        [B, (samples - size) // hop + 1, size].
    """
    batch, samples = signal.shape
    count = (samples - size) // hop + 1
    blocks = signal[:, : samples // hop * hop].reshape(batch, -1, hop)
    return torch.cat([blocks[:, i : i + count] for i in range(size // hop)], dim=2)


def magnitude(signal: Tensor, window: Tensor, hop: int, floor: float = 1e-7) -> Tensor:
    """|STFT| without padding: [B, samples] to [B, frames, bins]; ``floor`` is added to the power.

    The floor bounds the gradient where a bin is empty.
    """
    spectrum = torch.fft.rfft(frame(signal, window.shape[0], hop) * window)
    return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + floor)


def tacotron_mel(signal: Tensor, window: Tensor, filters: Tensor, hop: int) -> Tensor:
    """Natural-log mel magnitudes, clamped at 1e-5, without padding.

    Args:
        signal: [B, samples], with n_fft / 2 samples of context on either side.
        window: [n_fft].
        filters: [n_mels, bins].
        hop: Samples a frame.

    Returns:
        [B, n_mels, frames].
    """
    mel = magnitude(signal, window, hop, floor=0.0) @ filters.T
    return torch.log(mel.clamp(min=1e-5)).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class Resolution:
    """One STFT of the loss.

    Attributes:
        n_fft: Samples of a frame.
        hop: Samples between frames; divides ``n_fft``.
        n_mels: Mel bands; 0 for no mel term.
        fmax: Top of the mel bands in Hz; half the sampling rate if left out.
    """

    n_fft: int
    hop: int
    n_mels: int = 0
    fmax: float | None = None


@dataclass(frozen=True, slots=True)
class LossConfig:
    """What the spectral loss is made of; each weight multiplies a mean over resolutions.

    Attributes:
        resolutions: The STFTs; those with mel bands have a mel term.
        mel: Weight of the L1 distance of log mels.
        log_magnitude: Weight of the L1 distance of log magnitudes.
        convergence: Weight of |X - Y| / |Y| (Frobenius, over the batch).
        compressed: Weight of the L1 distance of magnitudes to the power ``exponent``, over the
            mean of the target's, which follows loudness rather than level in dB.
        exponent: Near 0.3 for loudness.
    """

    resolutions: tuple[Resolution, ...] = (
        Resolution(512, 128, 40),
        Resolution(1024, 256, 80, 8000.0),
        Resolution(2048, 512, 160),
    )
    mel: float = 15.0
    log_magnitude: float = 2.5
    convergence: float = 2.5
    compressed: float = 0.0
    exponent: float = 0.3


class SpectralLoss(nn.Module):
    """The weighted sum that :class:`LossConfig` describes.

    Source:
        Multi-resolution STFT: Yamamoto et al. 2020 (Parallel WaveGAN), section 2.2. Mel L1:
        Kong et al. 2020 (HiFi-GAN), section 2.4; at several scales: Kumar et al. 2023 (DAC).

    Raises:
        InputError: Nothing has a weight.
    """

    def __init__(self, config: LossConfig, rate: int) -> None:
        super().__init__()
        self.config = config
        weights = [config.log_magnitude, config.convergence, config.compressed]
        bands = any(r.n_mels for r in config.resolutions)
        if not config.resolutions or not any([*weights, config.mel * bands]):
            raise InputError("the spectral loss has no term; expected resolutions and weights")
        for i, r in enumerate(config.resolutions):
            self.register_buffer(f"window_{i}", torch.hann_window(r.n_fft), persistent=False)
            if r.n_mels:
                mel = MelConfig(r.n_fft, r.n_fft, fmax=r.fmax)
                filters = filter_bank(mel, r.n_mels, rate)
                matrix = torch.tensor(filters.T * (1024 / r.n_fft)).float()
                self.register_buffer(f"filters_{i}", matrix, persistent=False)

    def forward(self, generated: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The loss and its terms.

        Args:
            generated: [B, samples].
            target: [B, samples].

        Returns:
            Scalars: ``loss`` (weighted), then the unweighted means ``mel``, ``log_magnitude``,
            ``convergence`` and ``compressed`` as far as they have a weight.
        """
        config = self.config
        terms: dict[str, list[Tensor]] = {
            n: [] for n in ("mel", "log_magnitude", "convergence", "compressed")
        }
        for i, r in enumerate(config.resolutions):
            window = self.get_buffer(f"window_{i}")
            x = magnitude(generated, window, r.hop)
            with torch.no_grad():
                y = magnitude(target, window, r.hop)
            if r.n_mels and config.mel:
                filters = self.get_buffer(f"filters_{i}")
                x_mel, y_mel = ((s @ filters).clamp(min=1e-5).log() for s in (x, y))
                terms["mel"].append((x_mel - y_mel).abs().mean())
            if config.log_magnitude:
                terms["log_magnitude"].append((x.log() - y.log()).abs().mean())
            if config.convergence:
                terms["convergence"].append((x - y).norm() / y.norm())
            if config.compressed:
                x_loud, y_loud = x**config.exponent, y**config.exponent
                terms["compressed"].append((x_loud - y_loud).abs().mean() / y_loud.mean())
        means = {n: torch.stack(v).mean() for n, v in terms.items() if v}
        total = torch.stack([getattr(config, n) * v for n, v in means.items()]).sum()
        return {"loss": total, **means}
