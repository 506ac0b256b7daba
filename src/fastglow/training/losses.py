"""Spectral losses between generated and recorded audio, at several resolutions.

They compare magnitudes only: the phase of speech does not follow from its mel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastglow.audio.bands import filter_bank
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
        repulsion: From 0 to 1. What is like noise in speech cannot be told from the mel, and the
            audio nearest to all that it could have been is a hum of the hop's harmonics, not noise.
            So each recording is generated twice, from two noises, and half of this share of the
            distance between the two is taken off. With 1 every term is an energy distance, least
            where the generated audio is distributed as recordings are.
        hum: Weight of :class:`fastglow.training.hum.HumLoss`, which looks for just that hum.
        whistles: Weight of :class:`fastglow.training.hum.WhistleLoss`, on the lines of the groups.
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
    repulsion: float = 0.0
    hum: float = 0.0
    whistles: float = 0.0


class SpectralLoss(nn.Module):
    """The weighted sum that :class:`LossConfig` describes.

    Source:
        Multi-resolution STFT: Yamamoto et al. 2020 (Parallel WaveGAN), section 2.2. Mel L1:
        Kong et al. 2020 (HiFi-GAN), section 2.4; at several scales: Kumar et al. 2023 (DAC).
        Repulsion: Gritsenko et al. 2020, "A Spectral Energy Distance for Parallel Speech
        Synthesis", section 3.

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

    def forward(
        self, generated: Tensor, target: Tensor, twin: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The loss and its terms.

        Args:
            generated: [B, samples].
            target: [B, samples].
            twin: [B], where ``generated`` has the same recording made from another noise, for the
                repulsion; none: no repulsion.

        Returns:
            Scalars: ``loss`` (weighted), then the unweighted means ``mel``, ``log_magnitude``,
            ``convergence`` and ``compressed`` as far as they have a weight, and with a twin
            ``twins``, the weighted sum of the same distances between the two.
        """
        distances: dict[str, list[Tensor]] = defaultdict(list)
        apart: dict[str, list[Tensor]] = defaultdict(list)
        for i, r in enumerate(self.config.resolutions):
            window = self.get_buffer(f"window_{i}")
            x = self._features(i, magnitude(generated, window, r.hop))
            with torch.no_grad():
                y = self._features(i, magnitude(target, window, r.hop))
            for name in x:
                distances[name].append(_distance(name, x[name], y[name], y[name]))
                if twin is not None:
                    other = x[name][twin]
                    apart[name].append(_distance(name, x[name], other, y[name]))
        means = {n: torch.stack(v).mean() for n, v in distances.items()}
        total = self._weighted(means)
        if twin is None:
            return {"loss": total, **means}
        twins = self._weighted({n: torch.stack(v).mean() for n, v in apart.items()})
        return {"loss": total - 0.5 * self.config.repulsion * twins, **means, "twins": twins}

    def _features(self, i: int, spectrum: Tensor) -> dict[str, Tensor]:
        """What resolution ``i`` compares, by term, of magnitudes [B, frames, bins]."""
        config, found = self.config, {}
        if config.resolutions[i].n_mels and config.mel:
            found["mel"] = (spectrum @ self.get_buffer(f"filters_{i}")).clamp(min=1e-5).log()
        if config.log_magnitude:
            found["log_magnitude"] = spectrum.log()
        if config.convergence:
            found["convergence"] = spectrum
        if config.compressed:
            found["compressed"] = spectrum**config.exponent
        return found

    def _weighted(self, terms: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([getattr(self.config, n) * v for n, v in terms.items()]).sum()


def _distance(term: str, x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """Between the features of one term; ``scale`` is what relative terms are relative to."""
    if term == "convergence":
        off: Tensor = torch.linalg.vector_norm(x - y) / torch.linalg.vector_norm(scale)
        return off
    distance = (x - y).abs().mean()
    return distance / scale.mean() if term == "compressed" else distance
