"""How probable a network holds recordings: the terms of the negative log-likelihood."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastglow.training.network import InverseNetwork

STEP = 2.0**-15  # of 16-bit audio within [-1, 1)


def nll_terms(
    network: InverseNetwork, audio: Tensor, mel: Tensor, uniform: Tensor, sigma: float,
    freedom: float = 0.0,
) -> dict[str, Tensor]:  # fmt: skip
    """-log p(audio | mel) and what it is made of, means in nats a sample.

    Uniform noise of one 16-bit step fills the gaps between the levels: without it the density of
    digital silence has no bound, and training runs there.

    Args:
        network: The flow.
        audio: [B, samples] on 16-bit levels, within [-1, 1).
        mel: [B, n_mel, frames] of the same samples.
        uniform: [B, samples], uniform from 0 to 1.
        sigma: The prior's scale.
        freedom: As in :func:`prior_nll`.

    Returns:
        Scalars: ``likelihood``, -log p; ``prior``, that of the latents, ``log_s`` and
        ``log_det``, the two terms of the Jacobian, negated, whose sum it is; and ``latent``, the
        latents' root mean square, without a gradient.

    Source:
        Prenger et al. 2018, equation 7; dequantisation: Theis et al. 2016, section 3.1.
    """
    z, log_s, log_det = network.latents(audio + STEP * uniform, mel)
    samples = z.shape[1]
    terms = {
        "prior": prior_nll(z, sigma, freedom).mean(),
        "log_s": -log_s.mean() / samples,
        "log_det": -log_det / samples,
    }
    latent = z.detach().square().mean().sqrt()
    return {"likelihood": torch.stack(list(terms.values())).sum(), **terms, "latent": latent}


def prior_nll(z: Tensor, scale: float, freedom: float = 0.0) -> Tensor:
    """-log of the prior's density at each latent, in nats.

    Args:
        z: Latents, of any shape.
        scale: The prior's.
        freedom: Degrees of freedom of a Student-t distribution, whose pull on a latent fades as
            1 / z where a Gaussian's grows as z; 0: Gaussian.

    Returns:
        As ``z``.

    Source:
        Student-t: Alexanderson and Henter 2020, "Robust model training and generalisation with
        Studentising flows".
    """
    squares = (z / scale).square()
    if not freedom:
        return 0.5 * squares + math.log(scale * math.sqrt(2 * math.pi))
    half = (freedom + 1) / 2
    constant = math.lgamma(freedom / 2) - math.lgamma(half) + 0.5 * math.log(freedom * math.pi)
    return half * torch.log1p(squares / freedom) + constant + math.log(scale)
