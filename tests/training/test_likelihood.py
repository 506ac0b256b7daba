"""The likelihood is the density of the change of variables, and training raises it."""

import math

import numpy as np
import pytest
import torch

from fastglow.config import MelConfig, WaveGlowConfig, WNConfig
from fastglow.reference import WaveGlow
from fastglow.training.data import Segments
from fastglow.training.density import STEP, nll_terms, prior_nll
from fastglow.training.likelihood import LikelihoodObjective, objective_of
from fastglow.training.losses import LossConfig, Resolution
from fastglow.training.network import InverseNetwork
from fastglow.training.objective import InverseObjective, TrainConfig
from fastglow.training.trainer import Trainer

SMALL = WaveGlowConfig(
    n_mel_channels=3, n_flows=4, n_group=4, n_early_every=2, hop_length=8, upsample_kernel=16,
    sampling_rate=8000, wn=WNConfig(n_layers=2, n_channels=4),
    mel=MelConfig(n_fft=16, win_length=16, fmax=4000.0),
)  # fmt: skip


def network(config: WaveGlowConfig) -> InverseNetwork:
    torch.manual_seed(0)
    model = WaveGlow(config)
    for flow in model.WN:
        torch.nn.init.normal_(flow.end.weight, std=0.3)
    for mix in model.convinv:
        mix.conv.weight.data += 0.2 * torch.randn_like(mix.conv.weight)
    return InverseNetwork.from_tensors(config, model.to_tensors())


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
            return model.latents(x[None], mel[row : row + 1]).z[0]

        jacobian = torch.autograd.functional.jacobian(latent, exact[row])
        prior = torch.distributions.Normal(0.0, scale).log_prob(latent(exact[row])).sum()
        density = prior + torch.linalg.slogdet(jacobian)[1]
        expected.append(-float(density.detach()) / 32)
    assert float(terms["loss"]) == pytest.approx(np.mean(expected), rel=1e-9)
    parts = sum(float(terms[name]) for name in ("prior", "log_s", "log_det"))
    assert parts == pytest.approx(float(terms["loss"]))


def test_is_that_of_the_reference() -> None:
    model = network(SMALL)
    reference = WaveGlow.from_tensors(SMALL, model.to_tensors())
    audio, uniform, mel = torch.randn(3, 32), torch.rand(3, 32), torch.randn(3, 3, 4)
    with torch.no_grad():
        found = nll_terms(model.double(), audio, mel.double(), uniform.double(), 0.7)
        expected = reference((audio + uniform / 32768).double(), mel.double())
    nll = expected.nll(0.7).mean() + math.log(0.7 * math.sqrt(2 * math.pi))
    assert float(found["likelihood"]) == pytest.approx(float(nll), rel=1e-5)  # fp32 weights
    rms = expected.z.square().mean().sqrt()
    assert float(found["latent"]) == pytest.approx(float(rms), rel=1e-5)


@pytest.mark.parametrize("freedom", [0.0, 0.5, 3.0, 1e5])
def test_the_prior_is_the_named_distribution(freedom: float) -> None:
    z = torch.tensor([0.0, 0.3, -2.0, 5e3], dtype=torch.float64)
    scale = torch.tensor(0.7, dtype=torch.float64)
    prior = (
        torch.distributions.StudentT(torch.tensor(freedom).double(), 0.0, scale)
        if freedom
        else torch.distributions.Normal(0.0, scale)
    )
    torch.testing.assert_close(prior_nll(z, 0.7, freedom), -prior.log_prob(z))


def test_far_latents_do_not_pull_under_student_t() -> None:
    z = torch.tensor([1.0, 1e8], requires_grad=True)
    prior_nll(z, 0.6, 3.0).sum().backward()
    assert z.grad is not None
    assert 0 < float(z.grad[1]) < 1e-6 < float(z.grad[0])


def test_the_noise_fills_one_step_of_16_bits() -> None:
    noise = torch.empty(10000)
    LikelihoodObjective.fill(noise, torch.Generator().manual_seed(0))
    assert 0 <= float(noise.min()) < 1e-3
    assert 1 - 1e-3 < float(noise.max()) < 1
    assert STEP * 32768 == 1


def test_an_identity_has_the_priors_likelihood() -> None:
    config = TrainConfig(1, segment=32, sigma=0.5, loss=LossConfig(resolutions=()))
    model = InverseNetwork.untrained(SMALL)  # couplings start at zero
    for flow in model.parameters_of_flows():
        flow.mixing.data = torch.eye(len(flow.mixing))
    silence = torch.zeros(1, 48)
    with torch.no_grad():
        terms = LikelihoodObjective(model, config)(silence, torch.zeros(1, 32), torch.ones(1, 1))
    assert float(terms["loss"]) == pytest.approx(math.log(0.5 * math.sqrt(2 * math.pi)))
    assert float(terms["latent"]) == 0


def trainer_of(
    config: WaveGlowConfig, waves: list[torch.Tensor], steps: int, device: str = "cpu",
    capture: bool = True,
) -> Trainer:  # fmt: skip
    torch.manual_seed(0)
    train = TrainConfig(
        steps, batch=8, segment=512, learning_rate=5e-3, warmup=3, sigma=1.0, gain=0.0,
        loss=LossConfig(resolutions=()),
    )  # fmt: skip
    segments = Segments(waves, train.segment, config.mel.n_fft // 2, device=device)
    model = InverseNetwork.untrained(config).to(device)
    return Trainer(model, segments, train, capture=capture, objective="likelihood")


def test_training_raises_it(config: WaveGlowConfig, waves: list[torch.Tensor]) -> None:
    trainer = trainer_of(config, waves, 30)
    losses = [float(trainer.step()["loss"]) for _ in range(30)]
    assert np.mean(losses[-5:]) < losses[0] - 0.5  # nats a sample
    assert len(trainer.optimizers) == 1  # Muon is the inverse's
    assert trainer.state_dict()["objective"] == "LikelihoodObjective"
    assert all(torch.isfinite(p).all() for p in trainer.averaged().parameters())


def test_matrices_are_limited_for_the_inverse_alone(
    config: WaveGlowConfig, waves: list[torch.Tensor]
) -> None:
    trainer = trainer_of(config, waves, 1)
    for p in (f.mixing for f in trainer.network.parameters_of_flows()):
        p.data.mul_(1e-3)
    before = trainer.weights.clone()
    trainer._project()
    assert torch.equal(trainer.weights, before)


@pytest.mark.gpu
def test_a_step_is_captured(config: WaveGlowConfig, waves: list[torch.Tensor]) -> None:
    captured, eager = (trainer_of(config, waves, 8, "cuda", capture) for capture in (True, False))
    assert isinstance(captured._forward.__self__, torch.cuda.CUDAGraph)  # type: ignore[attr-defined]
    for _ in range(8):
        found, expected = float(captured.step()["loss"]), float(eager.step()["loss"])
        assert found == pytest.approx(expected, abs=1e-2)


def regularised(**changes: object) -> TrainConfig:
    loss = LossConfig(resolutions=(Resolution(128, 32, 12),))
    given = {"steps": 60, "batch": 8, "segment": 512, "learning_rate": 4e-3, "warmup": 3}
    return TrainConfig(**{**given, "loss": loss, "likelihood": 1.0, **changes})


@pytest.mark.parametrize(("share", "rows"), [(0.0, 1), (0.25, 2), (0.3, 3), (1.0, 8)])
def test_the_inverse_adds_that_of_some_segments(
    config: WaveGlowConfig, share: float, rows: int
) -> None:
    train = regularised(likelihood=0.3, likelihood_share=share, prior_freedom=4.0)
    objective = objective_of("inverse", network(config), train)
    assert isinstance(objective, InverseObjective)
    audio, noise, sigma = 0.1 * torch.randn(8, 640), torch.randn(8, 512), torch.ones(8, 1)
    with torch.no_grad():
        terms = objective(audio, noise, sigma)
        target, mel = objective.analysis(audio)
        uniform = torch.distributions.Normal(0, 1).cdf(noise)
        some = (t[:rows] for t in (target, mel, uniform))
        expected = nll_terms(objective.network, *some, train.sigma, 4.0)
        spectral = objective.loss(objective.network(mel, noise, sigma), target)
    assert float(terms["likelihood"]) == pytest.approx(float(expected["likelihood"]), rel=1e-5)
    assert float(terms["latent"]) == pytest.approx(float(expected["latent"]), rel=1e-5)
    total = spectral["loss"] + 0.3 * expected["likelihood"]
    assert float(terms["loss"]) == pytest.approx(float(total), rel=1e-5)
    assert "likelihood" not in InverseObjective(network(config), regularised(likelihood=0.0))(
        audio, noise, sigma
    )


def test_as_a_regulariser_it_brings_far_latents_back(
    config: WaveGlowConfig, waves: list[torch.Tensor]
) -> None:
    torch.manual_seed(0)
    train = regularised(prior_freedom=3.0, muon=False)
    model = InverseNetwork.untrained(config)
    for flow in model.parameters_of_flows():
        flow.mixing.data.mul_(0.1)  # latents of 10^3
    segments = Segments(waves, train.segment, config.mel.n_fft // 2)
    trainer = Trainer(model, segments, train)
    terms = [{n: float(v) for n, v in trainer.step().items()} for _ in range(60)]
    assert terms[0]["latent"] > 500
    assert terms[-1]["latent"] < 0.3 * terms[0]["latent"]
    assert terms[-1]["likelihood"] < terms[0]["likelihood"] - 0.5
