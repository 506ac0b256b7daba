"""What a run starts from: the network, and the recordings where it draws from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from fastglow.checkpoint import load_weights
from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError
from fastglow.training.check import Recording
from fastglow.training.data import Segments, respeed
from fastglow.training.network import InverseNetwork
from fastglow.training.objective import check_shapes
from fastglow.training.settings import DataConfig, Settings
from fastglow.voices import find_voice


def start_network(settings: Settings, base: Path) -> InverseNetwork:
    """The network as training starts, in fp32 on the CPU.

    Args:
        settings: Of the run.
        base: The folder that ``init`` is relative to, unless it is a voice's name.

    Raises:
        InputError: ``init`` has other hyperparameters than the settings, or they cannot be trained.
        CheckpointError: ``init`` cannot be read.
    """
    if settings.init is None:
        model = settings.model or WaveGlowConfig()
        check_shapes(model, settings.train)
        torch.manual_seed(settings.train.seed)
        return InverseNetwork.untrained(model)
    beside = base / Path(settings.init).expanduser()
    weights = load_weights(beside if beside.exists() else find_voice(settings.init))
    model = weights.config
    if settings.model is not None and settings.model != model:
        raise InputError(
            f"init {settings.init} has other hyperparameters than [model]: "
            f"{difference(model.to_dict(), settings.model.to_dict())}; leave [model] out"
        )
    check_shapes(model, settings.train)
    return InverseNetwork.from_tensors(model, dict(weights))


def difference(found: Mapping[str, object], expected: Mapping[str, object]) -> str:
    """The entries in which two mappings differ, as text."""
    return ", ".join(
        f"{name} {value} for {expected.get(name)}"
        for name, value in found.items()
        if value != expected.get(name)
    )


def make_segments(
    recordings: Sequence[Recording], data: DataConfig, segment: int, margin: int,
    device: torch.device,
) -> Segments:  # fmt: skip
    """The recordings and their copies at other speeds, where a trainer draws from them."""
    waves = [torch.from_numpy(r.wave) for r in recordings]
    weights = [r.weight for r in recordings]
    for speed in data.speeds:
        waves += [respeed(wave, speed) for wave in waves[: len(recordings)]]
        weights += [data.speed_weight * r.weight for r in recordings]
    return Segments(waves, segment, margin, weights, device)
