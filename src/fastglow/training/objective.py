"""How to train, and the inverse objective: mel and noise in, distance to the recording out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fastglow.audio.mel import filter_bank
from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError
from fastglow.training.losses import LossConfig, SpectralLoss, tacotron_mel
from fastglow.training.network import InverseNetwork


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: Steps of the whole run; the learning rate reaches zero after the last.
        batch: Segments a step and device.
        segment: Samples of a segment, a multiple of the hop.
        learning_rate: Its peak.
        warmup: Steps over which it rises.
        betas: Of Adam.
        weight_decay: On matrices; never on biases and 1x1 convolutions.
        muon: Whether Muon updates the matrices inside the WNs, and Adam only the rest (inverse
            objective; the likelihood is trained by Adam alone).
        ema: Decay of the averaged weights, reached after a warm-up.
        sigma: The noise's scale: that of inference, or the likelihood's prior.
        spread: Fraction of segments whose sigma is drawn from 0 to 1 instead, so that other
            settings (and the denoiser's 0) stay usable (inverse objective).
        mixing_floor: Least singular value of a 1x1 convolution (and its inverse), enforced every
            hundred steps; 0 to leave them alone (inverse objective).
        gain: Fraction of segments that are made up to 12 dB quieter.
        seed: Of segments and noise.
        loss: The spectral loss (inverse objective).
    """

    steps: int
    batch: int = 16
    segment: int = 16384
    learning_rate: float = 4.5e-4
    warmup: int = 1000
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    muon: bool = True
    ema: float = 0.999
    sigma: float = 0.6
    spread: float = 0.1
    mixing_floor: float = 0.02
    gain: float = 0.2
    seed: int = 0
    loss: LossConfig = field(default_factory=LossConfig)

    def rate(self, step: int) -> float:
        """The learning rate of a step: linear rise, then half a cosine to zero."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def check_shapes(model: WaveGlowConfig, config: TrainConfig) -> None:
    """Refuse lengths that do not fit each other.

    Raises:
        InputError: They do not.
    """
    mel, hop = model.mel, model.hop_length
    if mel.win_length != mel.n_fft or mel.n_fft % hop or config.segment % hop:
        raise InputError(
            f"cannot train with n_fft {mel.n_fft}, window {mel.win_length}, hop {hop} and "
            f"segments of {config.segment}: expected window = n_fft, and multiples of the hop"
        )
    longest = max([mel.n_fft, *(r.n_fft for r in config.loss.resolutions)])
    if config.segment < longest:
        raise InputError(
            f"segments of {config.segment} samples under an STFT of {longest}; expected longer ones"
        )
    for r in config.loss.resolutions:
        if r.n_fft % r.hop:
            raise InputError(f"the loss's STFT of {r.n_fft} has hop {r.hop}; expected a divisor")


class Analysis(nn.Module):
    """From segments with margins to what a network is trained on.

    Raises:
        InputError: The model's and the segments' lengths do not fit each other.
    """

    def __init__(self, model: WaveGlowConfig, config: TrainConfig) -> None:
        super().__init__()
        check_shapes(model, config)
        mel = model.mel
        self.hop, self.margin = model.hop_length, mel.n_fft // 2
        filters = filter_bank(mel, model.n_mel_channels, model.sampling_rate)
        self.register_buffer("window", torch.hann_window(mel.n_fft), persistent=False)
        self.register_buffer("filters", torch.tensor(filters).float(), persistent=False)

    @torch.no_grad()
    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """The segments [B, segment] and their mels [B, n_mel, segment // hop].

        Args:
            audio: [B, margin + segment + margin].
        """
        target = audio[:, self.margin : -self.margin]
        return target, self.mel(audio)[:, :, : target.shape[1] // self.hop]

    def mel(self, audio: Tensor) -> Tensor:
        """The model's mel of whole frames within audio [B, samples], without padding."""
        window, filters = self.get_buffer("window"), self.get_buffer("filters")
        return tacotron_mel(audio, window, filters, self.hop)


class InverseObjective(nn.Module):
    """From recorded segments and noise to the distance of what the network makes of them."""

    def __init__(self, network: InverseNetwork, config: TrainConfig) -> None:
        super().__init__()
        self.network, self.config = network, config
        self.analysis = Analysis(network.config, config)
        self.loss = SpectralLoss(config.loss, network.config.sampling_rate)

    @staticmethod
    def fill(noise: Tensor, generator: torch.Generator) -> None:
        """Draw what :meth:`forward` takes as noise."""
        noise.normal_(generator=generator)

    def forward(self, audio: Tensor, noise: Tensor, sigma: Tensor) -> dict[str, Tensor]:
        """The loss and its terms.

        Args:
            audio: [B, margin + segment + margin].
            noise: [B, segment], standard normal.
            sigma: [B, 1].
        """
        target, mel = self.analysis(audio)
        terms: dict[str, Tensor] = self.loss(self.network(mel, noise, sigma), target)
        return terms

    def generate(self, mel: Tensor, noise: Tensor) -> Tensor:
        """Audio [B, samples] from a mel [B, n_mel, frames] and standard normal noise."""
        audio: Tensor = self.network(mel, noise, self.config.sigma)
        return audio
