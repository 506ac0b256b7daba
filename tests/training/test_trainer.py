"""Training lowers its loss, and a resumed run is the run that never stopped."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError
from fastglow.reference import WaveGlow
from fastglow.training.adversary import AdversaryConfig
from fastglow.training.data import Segments
from fastglow.training.losses import LossConfig, Resolution
from fastglow.training.network import InverseNetwork
from fastglow.training.objective import InverseObjective, TrainConfig
from fastglow.training.trainer import Trainer

LOSS = LossConfig(resolutions=(Resolution(64, 16), Resolution(128, 32, 12)))


def make(config: WaveGlowConfig, waves: list[torch.Tensor], steps: int, **more: Any) -> Trainer:
    torch.manual_seed(0)
    settings = {"muon": False, "loss": LOSS, **more}
    train = TrainConfig(
        steps=steps, batch=8, segment=512, learning_rate=4e-3, warmup=5, ema=0.9, **settings
    )
    segments = Segments(waves, train.segment, config.mel.n_fft // 2)
    return Trainer(InverseNetwork.untrained(config), segments, train)


@pytest.mark.parametrize("muon", [False, True])
def test_the_loss_falls(config: WaveGlowConfig, waves: list[torch.Tensor], muon: bool) -> None:
    trainer = make(config, waves, steps=80, muon=muon)
    losses = [float(trainer.step()["loss"]) for _ in range(80)]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:3])
    assert trainer.config.rate(79) < 1e-5  # the schedule has run out
    averaged = trainer.averaged()
    with torch.no_grad():
        objective = InverseObjective(averaged, trainer.config)
        terms = objective(trainer.audio, trainer.noise, trainer.sigma)
    assert float(terms["loss"]) < 0.6 * np.mean(losses[:3])


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"muon": True},
        {"loss": replace(LOSS, repulsion=1.0)},
        {"loss": replace(LOSS, hum=1.0)},
        {"adversary": AdversaryConfig(1.0, channels=2, periods=(2, 3), windows=(64,))},
        {"likelihood": 0.1, "prior_freedom": 3.0},
        {"flows": 2, "muon": True, "products": "bf16"},
    ],
    ids=["adam", "muon", "repulsion", "hum", "adversary", "likelihood", "flows"],
)
def test_resuming_is_not_stopping(
    config: WaveGlowConfig, waves: list[torch.Tensor], more: dict[str, Any], tmp_path: Path
) -> None:
    whole = make(config, waves, steps=8, **more)
    for _ in range(8):
        whole.step()
    first = make(config, waves, steps=8, **more)
    for _ in range(3):
        first.step()
    first.save(tmp_path / "state.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]
    second = make(config, waves, steps=8, **more)
    second.load(tmp_path / "state.pt")
    assert second.done == 3
    for _ in range(5):
        second.step()
    assert second.terms.keys() == whole.terms.keys()
    for found, expected in zip(second.shared(), whole.shared(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("muon", [False, True])
def test_only_the_flows_next_to_the_audio_move(
    config: WaveGlowConfig, waves: list[torch.Tensor], muon: bool
) -> None:
    trainer = make(config, waves, steps=100, flows=1, muon=muon)  # the last projects, too
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    first = float(trainer.step()["loss"])
    for _ in range(99):
        trainer.step()
    assert float(trainer.terms["loss"]) < first
    averaged = dict(trainer.averaged().named_parameters())
    for name, p in trainer.network.named_parameters():
        stays = not name.startswith("flows.0.")
        assert torch.equal(p, before[name]) == stays, name
        assert torch.equal(averaged[name], before[name]) == stays, name


def test_another_models_state_is_refused(
    config: WaveGlowConfig, waves: list[torch.Tensor], tmp_path: Path
) -> None:
    trainer = make(config, waves, steps=1)
    state = trainer.state_dict()
    state["model_config"] = {**state["model_config"], "n_flows": 9}
    with pytest.raises(InputError, match="other hyperparameters"):
        trainer.load_state_dict(state)


@pytest.mark.parametrize(
    "other",
    [
        {"muon": True},
        {"flows": 2},
        {"adversary": AdversaryConfig(1.0, channels=2, periods=(2, 5), windows=(64,))},
        {"adversary": AdversaryConfig(1.0, channels=4, periods=(2, 3), windows=(64,))},
        {"objective": "likelihood"},
    ],
)
def test_another_runs_state_is_refused_before_anything_is_copied(
    config: WaveGlowConfig, waves: list[torch.Tensor], other: dict[str, Any], tmp_path: Path
) -> None:
    judges = AdversaryConfig(1.0, channels=2, periods=(2, 3), windows=(64,))
    trainer = make(config, waves, steps=1, adversary=judges)
    trainer.save(tmp_path / "state.pt")
    kind = {name: other.pop(name) for name in ("objective",) if name in other}
    second = make(config, waves, steps=1, **{"adversary": judges, **other})
    if kind:
        second = Trainer(second.network, second.segments, second.config, **kind)
    before = second.weights.clone()
    with pytest.raises(InputError, match="another objective"):
        second.load(tmp_path / "state.pt")
    assert torch.equal(second.weights, before)


def test_a_step_that_is_not_finite_is_skipped(
    config: WaveGlowConfig, waves: list[torch.Tensor]
) -> None:
    trainer = make(config, waves, steps=20)
    for _ in range(3):
        trainer.step()
    trainer._draw(3)
    trainer.audio[0, 0] = float("nan")
    before = trainer.weights.clone()
    trainer._compute()
    trainer._update()
    assert torch.equal(trainer.weights, before)  # neither momentum nor decay moves them
    assert torch.isfinite(trainer.running_norm)


def test_what_is_trained_is_what_the_reference_infers(
    config: WaveGlowConfig, waves: list[torch.Tensor]
) -> None:
    trainer = make(config, waves, steps=5)
    for _ in range(5):
        trainer.step()
    reference = WaveGlow.from_tensors(config, trainer.network.to_tensors())
    mel, noise = torch.randn(1, 12, 9).double(), torch.randn(1, 288).double()
    expected = reference.infer(mel, noise, 0.6)
    found = trainer.network(mel.float(), noise.float(), 0.6)
    assert (found - expected).norm() / expected.norm() < 1e-4


def test_the_schedule_rises_and_ends_at_zero() -> None:
    config = TrainConfig(steps=100, learning_rate=1.0, warmup=10)
    rates = [config.rate(i) for i in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert np.argmax(rates) in (9, 10)
    assert rates[100] == pytest.approx(0.0, abs=1e-12)
    assert all(a >= b for a, b in pairwise(rates[10:]))
