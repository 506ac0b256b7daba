"""The folder of .npy files that the exporter of Waveglow_Inference_in_CUDA writes.

Source: file names and layout are those of that program's ``get_wavenet_params.py``.
"""

from __future__ import annotations

import os
import re
import tokenize
from pathlib import Path

import numpy as np

from fastglow.atomic import replacing
from fastglow.checkpoint.finder import Found
from fastglow.checkpoint.inert import Array, LazyTensor
from fastglow.checkpoint.weights import Weights
from fastglow.errors import CheckpointError

INVERSE_TOLERANCE = 1e-3  # of conv_weight · conv_weight_inv against 1; the exporter has float32

_FLOW_FILE = re.compile(
    r"(\d{1,3})_(start|end|cond_layer|conv|(?:in|cond|res_skip|res|skip)_layers_\d{1,3})"
    r"_(weight_inv|weight_g|weight_v|weight|bias)"
)

# All that numpy raises on a damaged header, which it parses as a Python literal.
_NPY_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)


class _NpyTensor:
    """A .npy file whose header has been checked; the numbers are mapped when asked for."""

    def __init__(self, path: Path) -> None:
        try:
            array: Array = np.lib.format.open_memmap(path, mode="r")
        except _NPY_ERRORS as error:
            what = str(error).splitlines()[0][:160] if str(error) else "it is empty"
            raise CheckpointError(f"{path}: no readable .npy array ({what})") from None
        # Some exporters drop the kernel axis of a 1x1 convolution.
        self._array: Array = array[:, :, None] if array.ndim == 2 else array
        self.shape: tuple[int, ...] = self._array.shape

    def array(self) -> Array:
        """The numbers [shape]."""
        return self._array


def is_npy_folder(folder: Path) -> bool:
    """Whether ``folder`` holds the files of that exporter."""
    return any(folder.glob("0_*.npy"))


def read_npy_folder(folder: Path) -> Found:
    """The model in a folder of .npy files.

    Raises:
        CheckpointError: A file is unreadable, or an inverse is not that of its matrix.
    """
    found = Found({}, "npy folder")
    inverses: dict[str, LazyTensor] = {}
    for path in sorted(folder.glob("*.npy")):
        if path.stem in ("weight", "bias"):
            found.tensors[f"upsample.{path.stem}"] = _NpyTensor(path)
            continue
        match = _FLOW_FILE.fullmatch(path.stem)
        if match is None:
            continue
        flow, part, kind = match.groups()
        base = f"convinv.{flow}.conv" if part == "conv" else f"WN.{flow}.{_dotted(part)}"
        target = inverses if kind == "weight_inv" else found.tensors
        target[f"{base}.{kind.removesuffix('_inv')}"] = _NpyTensor(path)
    for name, inverse in inverses.items():
        _check_inverse(folder, name, found.tensors.get(name), inverse)
    return found


def _dotted(part: str) -> str:
    """``in_layers_3`` as ``in_layers.3``."""
    return re.sub(r"_(\d+)$", r".\1", part)


def _check_inverse(folder: Path, name: str, weight: LazyTensor | None, inverse: LazyTensor) -> None:
    flow = name.split(".")[1]
    file = folder / f"{flow}_conv_weight_inv.npy"
    if weight is None:
        raise CheckpointError(f"{file}: there is no {flow}_conv_weight.npy beside it")
    matrices = [np.squeeze(t.array()).astype(np.float64) for t in (weight, inverse)]
    n = matrices[0].shape[0] if matrices[0].ndim == 2 else 0
    if n > 64 or any(matrix.shape != (n, n) for matrix in matrices):
        raise CheckpointError(f"{file}: no inverse of {flow}_conv_weight.npy: the shapes differ")
    error = float(np.abs(matrices[0] @ matrices[1] - np.eye(n)).max())
    if not error <= INVERSE_TOLERANCE:
        raise CheckpointError(
            f"{file}: not the inverse of {flow}_conv_weight.npy (their product is off by "
            f"{error:.2g}); export the folder again or delete the file"
        )


def save_npy_folder(weights: Weights, folder: str | os.PathLike[str]) -> None:
    """Writes the folder of .npy files, float32, inverses included.

    Args:
        weights: What to write.
        folder: Made if need be; files in it are replaced one by one.

    Raises:
        CheckpointError: The model alternates its coupling, which that format cannot say, or
            the folder cannot be written.
    """
    if weights.config.coupling != "fixed":
        raise CheckpointError(
            "a folder of .npy files cannot say that the coupling alternates (glow_old); "
            "save as safetensors"
        )
    root = Path(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        for name in weights:
            array = weights[name]
            _write(root / f"{_file_name(name)}.npy", array)
            if name.startswith("convinv."):
                inverse = np.linalg.inv(array[:, :, 0])[:, :, None]
                _write(root / f"{_file_name(name)}_inv.npy", inverse)
    except OSError as error:
        raise CheckpointError(f"{root}: cannot be written ({error.strerror})") from None


def _file_name(name: str) -> str:
    head, _, rest = name.partition(".")
    if head == "upsample":
        return rest
    flow, _, rest = rest.partition(".")
    return f"{flow}_{rest.replace('.', '_')}"


def _write(path: Path, array: Array) -> None:
    with replacing(path) as (part,), part.open("wb") as file:
        np.save(file, array.astype(np.float32))
