"""The likelihood is the density of the change of variables, and training raises it."""

import math

import numpy as np
import pytest
import torch

from fastglow.config import MelConfig, WaveGlowConfig, WNConfig
from fastglow.reference import WaveGlow
from fastglow.training.data import Segments
from fastglow.training.likelihood import STEP, LikelihoodObjective
from fastglow.training.losses import LossConfig
from fastglow.training.objective import TrainConfig
from fastglow.training.trainer import Trainer

SMALL = WaveGlowConfig(
    n_mel_channels=3, n_flows=4, n_group=4, n_early_every=2, hop_length=8, upsample_kernel=16,
    sampling_rate=8000, wn=WNConfig(n_layers=2, n_channels=4),
    mel=MelConfig(n_fft=16, win_length=16, fmax=4000.0),
)  # fmt: skip


def network(config: WaveGlowConfig) -> WaveGlow:
    torch.manual_seed(0)
    model = WaveGlow(config)
    for flow in model.WN:
        torch.nn.init.normal_(flow.end.weight, std=0.3)
    for mix in model.convinv:
        mix.conv.weight.data += 0.2 * torch.randn_like(mix.conv.weight)
    return model


@pytest.mark.parametrize("sigma", [1.0, 0.7])
def test_is_the_density_of_the_change_of_variables(sigma: float) -> None:
    config = TrainConfig(1, segment=32, sigma=sigma, loss=LossConfig(resolutions=()))
    model = network(SMALL).double()
    objective = LikelihoodObjective(model, config).double()
    audio = 0.3 * torch.randn(2, 32 + 16, dtype=torch.float64)
    noise = torch.rand(2, 32, dtype=torch.float64)
    with torch.no_grad():
        terms = objective(audio, noise, torch.ones(2, 1))
    exact = audio[:, 8:-8] + noise / 32768
    mel = objective.analysis(audio)[1]
    scale, expected = torch.tensor(sigma, dtype=torch.float64), []
    for row in range(2):

        def latent(x: torch.Tensor, row: int = row) -> torch.Tensor:
            return model(x[None], mel[row : row + 1]).z[0]

        jacobian = torch.autograd.functional.jacobian(latent, exact[row])
        prior = torch.distributions.Normal(0.0, scale).log_prob(latent(exact[row])).sum()
        density = prior + torch.linalg.slogdet(jacobian)[1]
        expected.append(-float(density.detach()) / 32)
    assert float(terms["loss"]) == pytest.approx(np.mean(expected), rel=1e-9)
    parts = sum(float(terms[name]) for name in ("prior", "log_s", "log_det"))
    assert parts == pytest.approx(float(terms["loss"]))


def test_the_noise_fills_one_step_of_16_bits() -> None:
    noise = torch.empty(10000)
    LikelihoodObjective.fill(noise, torch.Generator().manual_seed(0))
    assert 0 <= float(noise.min()) < 1e-3
    assert 1 - 1e-3 < float(noise.max()) < 1
    assert STEP * 32768 == 1


def test_an_identity_has_the_priors_likelihood() -> None:
    config = TrainConfig(1, segment=32, sigma=0.5, loss=LossConfig(resolutions=()))
    model = WaveGlow(SMALL)  # couplings start at zero
    for mix in model.convinv:
        mix.conv.weight.data = torch.eye(mix.conv.weight.shape[0]).unsqueeze(-1)
    silence = torch.zeros(1, 48)
    with torch.no_grad():
        terms = LikelihoodObjective(model, config)(silence, torch.zeros(1, 32), torch.ones(1, 1))
    assert float(terms["loss"]) == pytest.approx(math.log(0.5 * math.sqrt(2 * math.pi)))


def test_training_raises_it(config: WaveGlowConfig, waves: list[torch.Tensor]) -> None:
    torch.manual_seed(0)
    train = TrainConfig(
        30, batch=8, segment=512, learning_rate=5e-3, warmup=3, sigma=1.0, gain=0.0,
        loss=LossConfig(resolutions=()),
    )  # fmt: skip
    segments = Segments(waves, train.segment, config.mel.n_fft // 2)
    trainer = Trainer(WaveGlow(config), segments, train)
    losses = [float(trainer.step()["loss"]) for _ in range(30)]
    assert np.mean(losses[-5:]) < losses[0] - 0.5  # nats a sample
    assert isinstance(trainer.averaged(), WaveGlow)
    assert all(torch.isfinite(p).all() for p in trainer.averaged().parameters())
