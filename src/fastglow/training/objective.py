"""The inverse objective: a recorded segment's mel and noise in, distance to the recording out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fastglow.audio.mel import filter_bank
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
        muon: Whether Muon updates the matrices inside the WNs, and Adam only the rest.
        ema: Decay of the averaged weights.
        sigma: The noise's scale, that of inference.
        spread: Fraction of segments whose sigma is drawn from 0 to 1 instead, so that other
            settings (and the denoiser's 0) stay usable.
        mixing_floor: Least singular value of a 1x1 convolution (and its inverse), enforced every
            hundred steps; 0 to leave them alone.
        gain: Fraction of segments that are made up to 12 dB quieter.
        seed: Of segments and noise.
        loss: The spectral loss.
    """

    steps: int
    batch: int = 16
    segment: int = 16384
    learning_rate: float = 5e-4
    warmup: int = 300
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    muon: bool = False
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


class Objective(nn.Module):
    """From recorded segments and noise to the loss."""

    def __init__(self, network: InverseNetwork, config: TrainConfig) -> None:
        super().__init__()
        model = network.config
        self.network, self.config, self.hop = network, config, model.hop_length
        self.margin = model.mel.n_fft // 2
        self.loss = SpectralLoss(config.loss, model.sampling_rate)
        mel = model.mel
        filters = filter_bank(mel, model.n_mel_channels, model.sampling_rate)
        if mel.win_length != mel.n_fft or mel.n_fft % self.hop or config.segment % self.hop:
            raise InputError(
                f"cannot train with n_fft {mel.n_fft}, window {mel.win_length}, hop {self.hop} and "
                f"segments of {config.segment}: expected window = n_fft, and multiples of the hop"
            )
        self.register_buffer("window", torch.hann_window(mel.n_fft), persistent=False)
        self.register_buffer("filters", torch.tensor(filters).float(), persistent=False)

    def forward(self, audio: Tensor, noise: Tensor, sigma: Tensor) -> dict[str, Tensor]:
        """The loss and its terms.

        Args:
            audio: [B, margin + segment + margin].
            noise: [B, segment], standard normal.
            sigma: [B, 1].
        """
        target = audio[:, self.margin : -self.margin]
        window, filters = self.get_buffer("window"), self.get_buffer("filters")
        with torch.no_grad():
            frames = target.shape[1] // self.hop
            mel = tacotron_mel(audio, window, filters, self.hop)[:, :, :frames]
        generated = self.network(mel, noise, sigma)
        terms: dict[str, Tensor] = self.loss(generated, target)
        return terms
