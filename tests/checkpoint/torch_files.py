"""Checkpoints made with PyTorch in the dialects of training programs."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastglow.checkpoint import Weights
from fastglow.config import WaveGlowConfig, WNConfig

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
SMALL = WaveGlowConfig(
    n_mel_channels=3,
    n_flows=4,
    n_group=4,
    n_early_every=2,
    n_early_size=2,
    wn=WNConfig(n_layers=2, n_channels=4),
    hop_length=8,
    upsample_kernel=32,
)


class Stand:
    """Stands in for any class of the original program, so that PyTorch can load its pickles."""

    def __init__(self, *args: object) -> None:
        self.args = args


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] in ("glow", "glow_old") or module.startswith("torch.nn"):
            return type(name, (Stand,), {"__module__": module})
        return super().find_class(module, name)


class Standing:
    """A ``pickle_module`` for ``torch.load``."""

    Unpickler = _Unpickler
    load = staticmethod(pickle.load)
    __name__ = "standing"


def torch_tensors(path: Path) -> dict[str, np.ndarray]:
    """Every parameter in a checkpoint by PyTorch's own reading, float64, prefix taken off."""
    root = torch.load(path, weights_only=False, map_location="cpu", pickle_module=Standing)
    model = root.get("model", root.get("state_dict", root)) if isinstance(root, dict) else root
    found: dict[str, np.ndarray] = {}

    def walk(module: Any, path: str) -> None:
        for name, value in module._parameters.items():
            if value is not None:
                found[path + name] = value.detach().double().numpy()
        for name, child in module._modules.items():
            walk(child, f"{path}{name}.")

    if isinstance(model, dict):
        found = {
            name.removeprefix("module."): value.detach().double().numpy()
            for name, value in model.items()
        }
    else:
        walk(model, "")
    return found


def folded(tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The weight or bias ``name``, by PyTorch's own weight norm in float64."""
    pairs = (
        (f"{name}_g", f"{name}_v"),
        tuple(f"{name.removesuffix('weight')}parametrizations.weight.original{i}" for i in (0, 1)),
    )
    for g, v in pairs:
        if g in tensors:
            both = torch.from_numpy(tensors[v]), torch.from_numpy(tensors[g])
            return torch._weight_norm(*both, 0).numpy()
    return tensors[name]


def has(tensors: dict[str, np.ndarray], name: str) -> bool:
    """Whether the weight or bias ``name`` is there in any form."""
    norm = f"{name.removesuffix('weight')}parametrizations.weight.original0"
    return any(form in tensors for form in (name, f"{name}_g", norm))


def published(tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
    """``name`` of the published layout, put together from any dialect's tensors."""
    if ".cond_layer." in name and not has(tensors, name):
        stem, part = name.split(".cond_layer.")
        count = sum(f"{stem}.cond_layers.{i}.bias" in tensors for i in range(99))
        layers = [folded(tensors, f"{stem}.cond_layers.{i}.{part}") for i in range(count)]
        return np.concatenate(layers)
    if ".res_skip_layers." in name and not has(tensors, name):
        names = [name.replace("res_skip", kind) for kind in ("res", "skip")]
        return np.concatenate([folded(tensors, n) for n in names if has(tensors, n)])
    return folded(tensors, name)


def state_dict(weights: Weights, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A plain state_dict with these weights."""
    return {name: torch.from_numpy(weights[name]).to(dtype) for name in weights}


def saved(root: object, *, legacy: bool = False) -> bytes:
    """What ``torch.save`` writes."""
    out = io.BytesIO()
    torch.save(root, out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()
