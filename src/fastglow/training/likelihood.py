"""The likelihood objective: how probable the flow holds the recording, as published."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastglow.training.density import nll_terms
from fastglow.training.network import InverseNetwork
from fastglow.training.objective import Analysis, InverseObjective, Kind, TrainConfig


class LikelihoodObjective(nn.Module):
    """From recorded segments to their mean negative log-likelihood.

    The parameters of the 1x1 convolutions are their inverses, otherwise all is as published.

    Source:
        Prenger et al. 2018, equation 7.
    """

    def __init__(self, network: InverseNetwork, config: TrainConfig) -> None:
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
            Scalars: ``loss``, -log p(audio | mel), and the other terms of
            :func:`fastglow.training.density.nll_terms`.
        """
        target, mel = self.analysis(audio)
        config = self.config
        terms = nll_terms(self.network, target, mel, noise, config.sigma, config.prior_freedom)
        return {"loss": terms.pop("likelihood"), **terms}

    def generate(self, mel: Tensor, noise: Tensor) -> Tensor:
        """Audio [B, samples] from a mel [B, n_mel, frames] and standard normal noise."""
        audio: Tensor = self.network(mel, noise, self.config.sigma)
        return audio


Objective = InverseObjective | LikelihoodObjective


def objective_of(kind: Kind, network: InverseNetwork, config: TrainConfig) -> Objective:
    """The objective of that kind."""
    if kind == "likelihood":
        return LikelihoodObjective(network, config)
    return InverseObjective(network, config)
