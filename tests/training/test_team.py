"""Two processes hold the same weights, which are those of their mean gradient."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError
from fastglow.training.data import Segments
from fastglow.training.losses import LossConfig, Resolution
from fastglow.training.network import InverseNetwork
from fastglow.training.objective import TrainConfig
from fastglow.training.team import joined
from fastglow.training.trainer import Trainer

TRAIN = TrainConfig(
    2, batch=2, segment=512, warmup=1, muon=False,
    loss=LossConfig(resolutions=(Resolution(128, 32, 12),)),
)  # fmt: skip


def trainer_of(
    config: WaveGlowConfig, waves: list[torch.Tensor], rank: int, world: int = 2
) -> Trainer:
    segments = Segments(waves, TRAIN.segment, config.mel.n_fft // 2)
    return Trainer(InverseNetwork.untrained(config), segments, TRAIN, rank, world)


def member(
    rank: int, port: int, folder: Path, config: WaveGlowConfig, waves: list[torch.Tensor]
) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )  # fmt: skip
    torch.set_num_threads(1)
    torch.manual_seed(rank)  # so that only align makes them equal
    with joined("cpu") as team:
        trainer = trainer_of(config, waves, team.rank, team.world)
        team.align(trainer.weights, trainer.average)
        first = trainer.weights.clone()
        trainer.step()
        gradient = trainer.gradients.clone()  # the first step clips nothing
        audio = trainer.audio.clone()
        trainer.step()
        seen = (team.leads, team.any(rank == 1), team.any(False))
        torch.save(
            {
                "first": first, "last": trainer.weights, "gradient": gradient, "audio": audio,
                "average": trainer.average, "seen": seen,
            },
            folder / f"{rank}.pt",
        )  # fmt: skip


def test_two_processes_are_one(
    config: WaveGlowConfig, waves: list[torch.Tensor], tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(member, (port, tmp_path, config, waves), nprocs=2)
    a, b = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name in ("first", "last", "average", "gradient"):
        assert torch.equal(a[name], b[name]), name
    assert not torch.equal(a["audio"], b["audio"])  # each draws its own segments
    alone = []
    for rank in (0, 1):
        trainer = trainer_of(config, waves, rank)
        trainer.weights.copy_(a["first"])
        trainer._draw(0)
        trainer._compute()
        alone.append(trainer.gradients.clone())
    mean = (alone[0] + alone[1]) / 2
    assert (a["gradient"] - mean).norm() < 1e-5 * mean.norm()
    assert not torch.equal(a["first"], a["last"])
    assert (a["seen"], b["seen"]) == ((True, True, False), (False, True, False))


def test_alone_there_is_nothing_to_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    weights = torch.from_numpy(np.ones(3))
    with joined("cpu") as team:
        team.align(weights)
        assert (team.leads, team.any(True), team.any(False)) == (True, True, False)
    assert weights.tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["gpu", "cpu:0", "cuda:x", "cuda:99"])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="device"), joined(name):
        pass
