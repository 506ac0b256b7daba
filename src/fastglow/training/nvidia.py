"""A checkpoint that NVIDIA's own programs load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastglow.atomic import replacing
from fastglow.checkpoint import Weights
from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError


def save_nvidia(weights: Weights, path: Path) -> None:
    """Write a ``state_dict`` with weight norm, under the published names, and its ``config``.

    ``WaveGlow(**checkpoint["config"]).load_state_dict(checkpoint["state_dict"])`` reads it in
    NVIDIA/waveglow and in DeepLearningExamples.

    Args:
        weights: The model.
        path: A .pt or .pth file; an old one is replaced.

    Raises:
        InputError: The suffix is another, or that program cannot hold this model.
    """
    check_nvidia(weights.config, path)
    state: dict[str, Tensor] = {}
    for name in weights:
        tensor = torch.from_numpy(weights[name]).float()
        if name.startswith("WN.") and name.endswith(".weight") and ".end." not in name:
            norm = torch.linalg.vector_norm(tensor, dim=(1, 2), keepdim=True)
            # A row of zeros has no direction; any will do at magnitude 0.
            state[f"{name}_g"], state[f"{name}_v"] = norm, torch.where(norm > 0, tensor, 1.0)
        else:
            state[name] = tensor
    config = weights.config
    settings: dict[str, Any] = {
        "n_mel_channels": config.n_mel_channels,
        "n_flows": config.n_flows,
        "n_group": config.n_group,
        "n_early_every": config.n_early_every,
        "n_early_size": config.n_early_size,
        "WN_config": {
            "n_layers": config.wn.n_layers,
            "n_channels": config.wn.n_channels,
            "kernel_size": config.wn.kernel_size,
        },
    }
    with replacing(path) as (part,):
        torch.save({"state_dict": state, "config": settings}, part)


def check_nvidia(config: WaveGlowConfig, path: Path) -> None:
    """Refuse what :func:`save_nvidia` cannot write, before the work.

    Raises:
        InputError: The suffix is another, or NVIDIA's program cannot hold this model.
    """
    if path.suffix not in (".pt", ".pth"):
        raise InputError(f"{path}: NVIDIA's format is a file ending in .pt or .pth")
    found = (config.hop_length, config.upsample_kernel, config.coupling)
    if found != (256, 1024, "fixed"):
        raise InputError(
            f"{path}: NVIDIA's program has hop 256, an upsampling kernel of 1024 and fixed "
            f"coupling; this model has {found[0]}, {found[1]} and {found[2]}"
        )
