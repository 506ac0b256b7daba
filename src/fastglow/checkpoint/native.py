"""fastglow's own format: ``model.safetensors`` beside a ``config.json`` with its SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastglow.atomic import replacing
from fastglow.checkpoint.dialects import COUPLINGS, check_numbers, to_weights
from fastglow.checkpoint.finder import find_model
from fastglow.checkpoint.inert import TensorRef, shown
from fastglow.checkpoint.infer import Given
from fastglow.checkpoint.machine import Buffer
from fastglow.checkpoint.tensors import read_safetensors, write_safetensors
from fastglow.checkpoint.weights import Provenance, Weights, expected_shapes
from fastglow.config import WaveGlowConfig
from fastglow.errors import CheckpointError

FORMAT, FORMAT_VERSION = "fastglow", 1
DTYPES = ("float32", "float16", "bfloat16", "float64")
MAX_CONFIG = 1_000_000  # bytes


def save_safetensors(
    weights: Weights, folder: str | os.PathLike[str], dtype: str = "float32"
) -> None:
    """Writes ``model.safetensors`` and ``config.json``, whole or not at all.

    Args:
        weights: What to write; weight norm is folded.
        folder: Made if need be.
        dtype: "float32", "float16", "bfloat16" or "float64".

    Raises:
        CheckpointError: ``dtype`` is unknown or cannot hold a value, or the folder cannot be
            written.
    """
    if dtype not in DTYPES:
        raise CheckpointError(f"unknown dtype {dtype!a}; {', '.join(DTYPES)} are known")
    root = Path(folder)
    shapes = expected_shapes(weights.config)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with replacing(root / "model.safetensors", root / "config.json") as (model, settings):
            with model.open("wb") as file:
                digest = write_safetensors(file, shapes, (weights[name] for name in shapes), dtype)
            config = _settings(weights, dtype, digest)
            settings.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{root}: cannot be written ({error.strerror})") from None


def _settings(weights: Weights, dtype: str, digest: str) -> dict[str, Any]:
    """What ``config.json`` holds; of the source's path the name only, not whose disk it was on."""
    provenance = weights.provenance
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dtype": dtype,
        "sha256": digest,
        "config": weights.config.to_dict(),
        "provenance": {**asdict(provenance), "path": Path(provenance.path).name},
    }


def load_safetensors(data: Buffer, source: str, config_path: Path | None, given: Given) -> Weights:
    """The weights in a safetensors file, with what ``config_path`` states of them.

    Args:
        data: The whole file.
        source: The name that the caller gave, for messages.
        config_path: A config.json of ours or of a training program; it need not exist.
        given: What the caller says of the model.

    Raises:
        CheckpointError: The files are damaged, contradict each other or are no WaveGlow.
    """
    tensors = read_safetensors(data, source)
    provenance = Provenance(source, sha256(data), "safetensors", "")
    config = _read_config(config_path) if config_path is not None else {}
    if config_path is not None and config.get("format") == FORMAT:
        return _load_own(tensors, provenance, config, config_path, given)
    found = find_model(tensors, source)
    found.settings = [config, *(value for value in config.values() if isinstance(value, dict))]
    return to_weights(found, given, provenance, len(data))


def sha256(data: Buffer) -> str:
    """The SHA-256 of ``data``, hexadecimal."""
    digest = hashlib.sha256()
    with memoryview(data) as view:
        digest.update(view)
    return digest.hexdigest()


def _read_config(path: Path) -> dict[str, Any]:
    """The object in a config.json; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(MAX_CONFIG).decode("utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise CheckpointError(f"{path}: no readable JSON ({shown(str(error))})") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: holds no JSON object")
    return config


def _load_own(
    tensors: dict[str, TensorRef],
    provenance: Provenance,
    settings: Mapping[str, Any],
    path: Path,
    given: Given,
) -> Weights:
    """The weights that :func:`save_safetensors` wrote."""
    if settings.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {shown(settings.get('format_version'))}; this fastglow "
            f"reads {FORMAT_VERSION}: upgrade it"
        )
    if settings.get("sha256") != provenance.sha256:
        raise CheckpointError(
            f"{path}: the weight file's SHA-256 is {provenance.sha256[:16]}…, but this states "
            f"{shown(settings.get('sha256'), 16)}…; one of them is damaged or was replaced: "
            "get both again"
        )
    config = _config(settings.get("config"), path)
    for name, value, stated in (
        ("hop", given.hop, config.hop_length),
        ("rate", given.rate, config.sampling_rate),
        ("dialect", COUPLINGS.get(given.dialect or "", given.dialect), config.coupling),
    ):
        if value is not None and value != stated:
            raise CheckpointError(
                f"{path}: states {stated} where {name}={value} was given; leave the argument out"
            )
    extra = sorted(tensors.keys() - expected_shapes(config).keys())
    if extra:
        raise CheckpointError(f"{path}: {extra[0][:80]!a} is in the weight file but in no model")
    origin = settings.get("provenance")
    origin = origin if isinstance(origin, dict) else {}
    notes = origin.get("notes")
    provenance = Provenance(
        provenance.path,
        provenance.sha256,
        provenance.container,
        f"fastglow, once {shown(origin.get('dialect'), 200)}",
        tuple(shown(note, 300) for note in (notes if isinstance(notes, list) else ())),
    )
    arrays = {name: tensor.array() for name, tensor in tensors.items()}
    weights = Weights(config, arrays, provenance)
    check_numbers(weights)
    return weights


def _config(data: object, path: Path) -> WaveGlowConfig:
    """The hyperparameters, each of the type that it must have."""
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: has no hyperparameters under 'config'")
    try:
        return WaveGlowConfig.from_dict(data)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
