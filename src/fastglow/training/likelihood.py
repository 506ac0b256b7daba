"""The likelihood objective: how probable the flow holds the recording, as published."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fastglow.reference import WaveGlow
from fastglow.training.network import InverseNetwork
from fastglow.training.objective import Analysis, InverseObjective, TrainConfig

STEP = 2.0**-15  # of 16-bit audio within [-1, 1)


class LikelihoodObjective(nn.Module):
    """From recorded segments to their mean negative log-likelihood.

    Uniform noise of one 16-bit step fills the gaps between the levels: without it the density of
    digital silence has no bound, and training runs there.

    Source:
        Prenger et al. 2018, equation 7; dequantisation: Theis et al. 2016, section 3.1.
    """

    def __init__(self, network: WaveGlow, config: TrainConfig) -> None:
        super().__init__()
        self.network, self.config = network, config
        self.analysis = Analysis(network.config, config)

    @staticmethod
    def fill(noise: Tensor, generator: torch.Generator) -> None:
        """Draw what :meth:`forward` takes as noise."""
        noise.uniform_(generator=generator)

    def forward(self, audio: Tensor, noise: Tensor, sigma: Tensor) -> dict[str, Tensor]:
        """The loss and its terms, in nats a sample.

        Args:
            audio: [B, margin + segment + margin].
            noise: [B, segment], uniform within [0, 1).
            sigma: Not used: the prior has one scale, that of the settings.

        Returns:
            Scalars: ``loss``, -log p(audio | mel); and what it is the sum of: ``prior``, that of
            the latents, ``log_s`` and ``log_det``, the two terms of the Jacobian, negated.
        """
        target, mel = self.analysis(audio)
        z, log_s, log_det = self.network(target + STEP * noise, mel)
        samples, scale = z.shape[1], self.config.sigma
        terms = {
            "prior": 0.5 * (z / scale).square().mean() + math.log(scale * math.sqrt(2 * math.pi)),
            "log_s": -log_s.mean() / samples,
            "log_det": -log_det / samples,
        }
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def generate(self, mel: Tensor, noise: Tensor) -> Tensor:
        """Audio [B, samples] from a mel [B, n_mel, frames] and standard normal noise."""
        return self.network.infer(mel, noise, self.config.sigma)


Network = InverseNetwork | WaveGlow
Objective = InverseObjective | LikelihoodObjective


def objective_of(network: Network, config: TrainConfig) -> Objective:
    """The objective that a network is made for: the inverse's or the published direction's."""
    if isinstance(network, WaveGlow):
        return LikelihoodObjective(network, config)
    return InverseObjective(network, config)
