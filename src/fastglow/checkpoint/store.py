"""Loads weights from whatever holds them: the kind of file is told by its content."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.checkpoint.dialects import to_weights
from fastglow.checkpoint.finder import find_model, is_tensor
from fastglow.checkpoint.identify import name_bytes
from fastglow.checkpoint.infer import Given
from fastglow.checkpoint.machine import Buffer
from fastglow.checkpoint.native import load_safetensors, sha256
from fastglow.checkpoint.npyfolder import is_npy_folder, read_npy_folder
from fastglow.checkpoint.tensors import is_safetensors, read_safetensors
from fastglow.checkpoint.torchfile import read_stream, read_zip
from fastglow.checkpoint.weights import Provenance, Weights
from fastglow.errors import CheckpointError


def load_weights(
    path: str | os.PathLike[str],
    *,
    hop: int | None = None,
    rate: int | None = None,
    dialect: str | None = None,
) -> Weights:
    """Reads a WaveGlow checkpoint of any kind without executing anything in it.

    Args:
        path: A .pt/.pth file of ``torch.save``, a .safetensors file, a folder of
            ``model.safetensors`` and ``config.json``, or a folder of .npy files.
        hop: Audio samples a mel frame, where the file does not state it.
        rate: Sampling rate in Hz, where the file does not state it.
        dialect: "glow" or "glow_old", where the file does not state it.

    Returns:
        The weights; their arrays are views of the mapped file where that is possible.

    Raises:
        CheckpointError: There is no such file, or it is damaged, unsafe, contradictory or
            no WaveGlow.
    """
    given = Given(hop, rate, dialect)
    place = Path(path)
    if place.is_dir():
        return _load_folder(place, given)
    data = _map(place)
    if is_safetensors(data):
        # A config.json belongs to the only weight file beside it.
        alone = len(list(place.parent.glob("*.safetensors"))) == 1
        config = place.with_name("config.json") if alone else None
        return load_safetensors(data, str(path), config, given)
    root, container = _read_torch(data, str(path))
    provenance = Provenance(str(path), sha256(data), container, "")
    return to_weights(find_model(root, str(path)), given, provenance, len(data))


def read_tensor_file(path: str | os.PathLike[str]) -> NDArray[np.generic]:
    """The one tensor in a .pt or .safetensors file, such as a mel, without executing anything.

    Args:
        path: A file that holds a tensor, or a dict or list with one tensor or a key ``mel``.

    Returns:
        The tensor, as stored (bfloat16 as float32).

    Raises:
        CheckpointError: The file is damaged or unsafe, or holds no tensor or several.
    """
    data, source = _map(Path(path)), str(path)
    root: Any
    root = read_safetensors(data, source) if is_safetensors(data) else _read_torch(data, source)[0]
    if not is_tensor(root):
        if isinstance(root, dict):
            values = [root["mel"]] if "mel" in root else list(root.values())
        else:
            values = list(root) if isinstance(root, list | tuple) else []
        tensors = [value for value in values if is_tensor(value)]
        if len(tensors) != 1:
            raise CheckpointError(
                f"{source}: holds {len(tensors) or 'no'} tensors where one was expected; "
                "save the mel alone or under the key 'mel'"
            )
        root = tensors[0]
    try:
        array: NDArray[np.generic] = root.array()
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from None
    return array


def _map(path: Path) -> Buffer:
    """The bytes of a file, mapped."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise CheckpointError(f"{path}: the file is empty; get it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file or folder") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from None


def _read_torch(data: Buffer, source: str) -> tuple[Any, str]:
    """The object in either container of ``torch.save``, and the container's name."""
    if data[:2] == b"PK":
        return read_zip(data, source), "torch zip"
    known = name_bytes(data[:512])
    if known is not None:
        raise CheckpointError(f"{source}: {known}")
    return read_stream(data, source)


def _load_folder(folder: Path, given: Given) -> Weights:
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return load_safetensors(_map(files[0]), str(folder), folder / "config.json", given)
    if files:
        raise CheckpointError(f"{folder}: holds {len(files)} .safetensors files; name one of them")
    if is_npy_folder(folder):
        size = sum(file.stat().st_size for file in folder.glob("*.npy"))
        provenance = Provenance(str(folder), "", "npy folder", "")
        return to_weights(read_npy_folder(folder), given, provenance, size)
    raise CheckpointError(
        f"{folder}: no checkpoint in this folder; expected model.safetensors and config.json, "
        "or the .npy files of an exported model (0_start_weight.npy, …)"
    )
