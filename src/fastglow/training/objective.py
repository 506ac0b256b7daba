"""How to train, and the inverse objective: mel and noise in, distance to the recording out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from fastglow.audio.bands import filter_bank
from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError
from fastglow.training.adversary import Adversary, AdversaryConfig
from fastglow.training.density import nll_terms
from fastglow.training.hum import HOPS, WINDOW, HumLoss, WhistleLoss
from fastglow.training.losses import LossConfig, SpectralLoss, tacotron_mel
from fastglow.training.network import InverseNetwork, Products

Kind = Literal["inverse", "likelihood"]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: Steps of the whole run; the learning rate reaches zero after the last.
        batch: Segments a step and device.
        segment: Samples of a segment, a multiple of the hop.
        flows: How many flows are trained, those next to the audio, and nothing else; 0 for all.
            Through the inverse no gradient then passes through the others.
        products: In what the WNs' matrices are multiplied on a CPU; on a GPU it changes nothing.
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
            hundred steps; 0 to leave them alone (inverse objective: the likelihood's determinant
            keeps them from collapse).
        likelihood: Weight of the negative log-likelihood, in nats a sample, beside the spectral
            loss (inverse objective). It keeps the latents of real speech near the prior, which
            the spectral loss does not care for; 0: not computed.
        likelihood_share: Share of a step's segments that this term looks at, at least one segment.
        prior_freedom: Degrees of freedom of a Student-t prior in the likelihood, in place of the
            Gaussian, whose gradient drowns all else where latents are far out, as those of a
            network trained through the inverse alone are; 0: Gaussian. Audio is generated from
            Gaussian noise all the same.
        gain: Fraction of segments that are made up to 12 dB quieter.
        seed: Of segments and noise.
        loss: The spectral loss (inverse objective).
        adversary: The discriminators (inverse objective).
    """

    steps: int
    batch: int = 16
    segment: int = 16384
    flows: int = 0
    products: Products = "fp32"
    learning_rate: float = 4.5e-4
    warmup: int = 1000
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    muon: bool = True
    ema: float = 0.999
    sigma: float = 0.6
    spread: float = 0.1
    mixing_floor: float = 0.02
    likelihood: float = 0.0
    likelihood_share: float = 0.25
    prior_freedom: float = 0.0
    gain: float = 0.2
    seed: int = 0
    loss: LossConfig = field(default_factory=LossConfig)
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)

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
    longest = max(longest, HOPS * hop if config.loss.hum else 0)
    longest = max(longest, WINDOW if config.loss.whistles else 0)
    if config.segment < longest:
        raise InputError(
            f"segments of {config.segment} samples under an STFT of {longest}; expected longer ones"
        )
    if config.flows > model.n_flows:
        raise InputError(
            f"train.flows is {config.flows}; expected at most the model's {model.n_flows}, "
            "or 0 for all"
        )
    if config.adversary.weight:
        config.adversary.check(config.segment)
    if config.loss.repulsion and config.batch % 2:
        raise InputError(
            f"the loss's repulsion generates each recording twice; batch is {config.batch}, "
            "expected an even number"
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
        self.tones = nn.ModuleDict()
        if config.loss.hum:
            self.tones["hum"] = HumLoss(network.config.hop_length)
        if config.loss.whistles:
            self.tones["whistles"] = WhistleLoss(network.config.n_group)
        self.adversary: Adversary | None = None
        if config.adversary.weight:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                self.adversary = Adversary(config.adversary)

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

        Returns:
            Those of :class:`SpectralLoss`; ``hum`` and ``whistles`` if they have weights; in
            training those of :class:`Adversary` if there is one, of which ``critic`` is not part of
            ``loss``; with a weight for the likelihood also ``likelihood``, -log p in nats a sample,
            unweighted, and ``latent``, the latents' root mean square.
        """
        target, mel = self.analysis(audio)
        twin = None
        if self.training and self.config.loss.repulsion:  # half the recordings, each twice
            half = len(target) // 2
            target, mel, sigma = (torch.cat([t[:half], t[:half]]) for t in (target, mel, sigma))
            twin = torch.arange(2 * half, device=target.device).roll(half)
        generated = self.network(mel, noise, sigma)
        terms: dict[str, Tensor] = self.loss(generated, target, twin)
        for name, tone in self.tones.items():
            heard = tone(generated, target)
            weighted = getattr(self.config.loss, name) * heard
            terms = {**terms, "loss": terms["loss"] + weighted, name: heard}
        if self.training and self.adversary:
            judged = self.adversary(generated, target)
            terms = {**terms, **judged, "loss": terms["loss"] + self.adversary.weighted(judged)}
        if self.config.likelihood:
            regulariser = self._likelihood(target, mel, noise)
            weighted = self.config.likelihood * regulariser["likelihood"]
            terms = {**terms, "loss": terms["loss"] + weighted, **regulariser}
        return terms

    def _likelihood(self, target: Tensor, mel: Tensor, noise: Tensor) -> dict[str, Tensor]:
        config = self.config
        some = slice(max(1, math.ceil(config.likelihood_share * len(target))))
        uniform = torch.special.ndtr(noise[some])  # of the same noise: no further to draw
        terms = nll_terms(
            self.network, target[some], mel[some], uniform, config.sigma, config.prior_freedom
        )
        return {name: terms[name] for name in ("likelihood", "latent")}

    def generate(self, mel: Tensor, noise: Tensor) -> Tensor:
        """Audio [B, samples] from a mel [B, n_mel, frames] and standard normal noise."""
        audio: Tensor = self.network(mel, noise, self.config.sigma)
        return audio
