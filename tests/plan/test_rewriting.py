"""The rewriting is exact: the plan in float64 equals the published network in float64."""

import numpy as np
import pytest
import torch

from fastglow.config import WaveGlowConfig, WNConfig
from fastglow.errors import CheckpointError
from fastglow.plan import Plan
from fastglow.plan.cost import cost
from fastglow.plan.evaluate import evaluate
from fastglow.reference.waveglow import WaveGlow

from models import ODD, RAGGED, random_input, random_weights, relative_error

CASES = [(name, form) for name in ODD for form in ("phases", "published")]


def published(weights, mel, noise, sigma):
    network = WaveGlow.from_weights(weights)
    with torch.inference_mode():
        return network.infer(torch.tensor(mel), torch.tensor(noise), sigma).numpy()


@pytest.mark.parametrize(("name", "form"), CASES)
@pytest.mark.parametrize("frames", [1, 2, 23])
def test_plan_equals_the_published_network(name, form, frames):
    weights = random_weights(ODD[name])
    mel, noise = random_input(ODD[name], frames)
    expected = published(weights, mel, noise, 0.7)[0]
    found = evaluate(Plan(weights, form), mel[0], noise[0], 0.7)
    assert relative_error(found, expected) <= 1e-9


def test_a_hop_that_the_group_does_not_divide_takes_the_published_form():
    weights = random_weights(RAGGED)
    mel, noise = random_input(RAGGED, 9)
    found = evaluate(Plan(weights, "published"), mel[0], noise[0], 1.0)
    assert relative_error(found, published(weights, mel, noise, 1.0)[0]) <= 1e-9
    with pytest.raises(CheckpointError, match="250"):
        Plan(weights, "phases")


def test_noise_of_the_published_order_is_audio_shaped():
    """Channel c of step t is sample n_group * t + c, whatever flow it enters at."""
    config = ODD["tiny"]
    weights = random_weights(config)
    mel, noise = random_input(config, 5)
    base = evaluate(Plan(weights), mel[0], noise[0], 1.0)
    for channel in range(config.n_group):
        moved = noise[0].copy()
        moved[channel :: config.n_group] = np.nan
        early = channel < config.n_group - config.flow_channels[-1]
        audio = evaluate(Plan(weights), mel[0], moved, 1.0)
        assert np.isnan(audio).any()
        assert np.isfinite(base).all()
        assert early == (channel < config.n_early_size)


@pytest.mark.parametrize(
    ("channels", "before", "after"),
    [(64, 913_408, 534_400), (128, 2_342_912, 1_470_208), (256, 6_750_208, 4_546_048)],
)
def test_the_rewriting_needs_fewer_products(channels, before, after):
    """Against figures worked out by hand without start, end, 1x1 and upsampling, n = 8."""
    config = WaveGlowConfig(wn=WNConfig(n_channels=channels))
    flows = config.n_flows
    assert cost(config, "published").macs_per_step / flows == pytest.approx(before, rel=0.03)
    assert cost(config, "rewritten").macs_per_step / flows == pytest.approx(after, rel=0.01)
