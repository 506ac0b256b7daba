"""The discriminators: what they look at, and whom their gradients reach."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fastglow.errors import InputError
from fastglow.training.adversary import (
    Adversary,
    AdversaryConfig,
    PeriodDiscriminator,
    ResolutionDiscriminator,
)
from fastglow.training.losses import magnitude

SMALL = AdversaryConfig(weight=1.0, channels=4, periods=(2, 3), windows=(64,))


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 1024, requires_grad=True), torch.randn(2, 1024)


def test_a_period_is_seen_by_itself() -> None:
    torch.manual_seed(0)
    discriminator, audio = PeriodDiscriminator(5, 4), torch.randn(1, 1003)
    changed = audio.clone()
    changed[0, 3::5] += 1
    before, after = discriminator(audio).score, discriminator(changed).score
    rows = (before != after).flatten(1).any(1)
    assert rows.tolist() == [False, False, False, True, False]


def test_a_spectrogram_is_all_that_its_discriminator_sees() -> None:
    torch.manual_seed(0)
    discriminator, audio = ResolutionDiscriminator(64, 4), torch.randn(1, 1024)
    torch.testing.assert_close(discriminator(-audio).score, discriminator(audio).score)
    first = discriminator.layers[0](magnitude(audio, torch.hann_window(64), 16)[:, None])
    expected = torch.where(first > 0, first, 0.1 * first)
    torch.testing.assert_close(discriminator(audio).features[0], expected)


def test_losses_are_those_of_the_scores(pair: tuple[Tensor, Tensor]) -> None:
    audio, target = pair
    torch.manual_seed(1)
    adversary = Adversary(SMALL)
    with torch.no_grad():
        found = adversary(audio, target)
        fakes = [d(audio) for d in adversary.discriminators]
        reals = [d(target) for d in adversary.discriminators]
    critic = [
        ((1 - r.score) ** 2).mean() + (f.score**2).mean() for r, f in zip(reals, fakes, strict=True)
    ]
    fooled = [((1 - f.score) ** 2).mean() for f in fakes]
    far = [
        (a - b).abs().mean() / b.abs().mean()
        for f, r in zip(fakes, reals, strict=True)
        for a, b in zip(f.features, r.features, strict=True)
    ]
    for name, values in (("critic", critic), ("adversarial", fooled), ("features", far)):
        torch.testing.assert_close(found[name], torch.stack(values).mean(), msg=name)


def test_neither_side_moves_the_other(pair: tuple[Tensor, Tensor]) -> None:
    audio, target = pair
    adversary = Adversary(SMALL)
    adversary(audio, target)["critic"].backward()
    assert audio.grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adversary.parameters())
    adversary.zero_grad()
    terms = adversary(audio, target)
    (terms["adversarial"] + terms["features"]).backward()
    assert audio.grad is not None
    assert all(p.grad is None for p in adversary.parameters())
    assert all(p.requires_grad for p in adversary.parameters())


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (replace(SMALL, periods=(), windows=()), "neither periods nor windows"),
        (replace(SMALL, windows=(510,)), "multiples of 4"),
        (replace(SMALL, windows=(2048,), segment=1024), "longer train.adversary.segment"),
        (replace(SMALL, periods=(4097,), windows=()), "longer train.adversary.segment"),
    ],
)
def test_what_can_look_at_nothing_is_refused(config: AdversaryConfig, word: str) -> None:
    with pytest.raises(InputError, match=word):
        config.check(4096)
    replace(SMALL, windows=()).check(4096)


def test_they_learn_to_tell_a_hum_from_noise() -> None:
    torch.manual_seed(2)
    adversary = Adversary(SMALL)
    optimizer = torch.optim.Adam(adversary.parameters(), 3e-3)
    hum = torch.sin(torch.arange(1024) * 0.3)[None] * torch.ones(4, 1)
    losses = []
    for _ in range(60):
        losses.append(adversary(hum, torch.randn(4, 1024))["critic"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert float(losses[-1].detach()) < 0.3 * float(losses[0].detach())
