"""The safetensors format, read in place and written one tensor at a time.

The reader maps the file and the writer streams, so that neither holds a model in memory a
second time; numpy's missing bfloat16 is widened or rounded here.

Source: the format is that of https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np

from fastglow.checkpoint.inert import NUMPY_TYPES, Array, Storage, TensorRef, shown, view_tensor
from fastglow.checkpoint.machine import Buffer
from fastglow.checkpoint.weights import Float64
from fastglow.errors import CheckpointError

MAX_HEADER = 5_000_000  # bytes; a WaveGlow's is about 50,000

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def is_safetensors(data: Buffer) -> bool:
    """Whether ``data`` starts like a safetensors file."""
    return len(data) >= 10 and data[8:9] == b"{" and data[:2] != b"PK"


def read_safetensors(data: Buffer, source: str) -> dict[str, TensorRef]:
    """The tensors of a safetensors file, by name; their numbers stay in the file.

    Args:
        data: The whole file.
        source: The file's name, for messages.

    Raises:
        CheckpointError: The file is damaged.
    """
    size = int.from_bytes(data[:8], "little")
    if size > min(MAX_HEADER, len(data) - 8):
        raise CheckpointError(
            f"{source}: a safetensors header of {size} bytes does not fit; get the file again"
        )
    try:
        header = json.loads(data[8 : 8 + size].decode("utf-8"))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        tensors = {name: _tensor(data, name, entry, 8 + size) for name, entry in entries.items()}
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source}: damaged safetensors header ({shown(str(error))}); get the file again"
        ) from None
    behind = 0
    for start, end in sorted(entry["data_offsets"] for entry in entries.values()):
        if start != behind:
            raise CheckpointError(f"{source}: safetensors data overlap or have gaps at {start}")
        behind = end
    if behind != len(data) - 8 - size:
        raise CheckpointError(
            f"{source}: holds {len(data) - 8 - size} bytes of data where its header promises "
            f"{behind}; get the file again"
        )
    return tensors


def _tensor(data: Buffer, name: str, entry: Any, base: int) -> TensorRef:
    dtype, shape, (start, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    if type(start) is not int or type(end) is not int or not 0 <= start <= end <= len(data) - base:
        raise ValueError(f"{name[:80]} lies outside the file")
    if any(type(extent) is not int for extent in shape) or len(shape) > 16:
        raise ValueError(f"{name[:80]} has no shape")
    item = np.dtype(NUMPY_TYPES[dtype]).itemsize
    if math.prod(shape) * item != end - start:
        raise ValueError(f"{name[:80]} of shape {shape} does not take {end - start} bytes")
    storage = Storage(
        name,
        dtype,
        (end - start) // item,
        lambda: np.frombuffer(data, np.uint8, end - start, base + start),
    )
    return view_tensor(storage, 0, shape, [math.prod(shape[i + 1 :]) for i in range(len(shape))])


def write_safetensors(
    file: BinaryIO, shapes: dict[str, tuple[int, ...]], arrays: Iterable[Float64], dtype: str
) -> str:
    """Writes tensors in one number type.

    Args:
        file: Open for writing.
        shapes: Of each tensor, by name.
        arrays: The tensors in the order of ``shapes``, float64.
        dtype: "float64", "float32", "float16" or "bfloat16".

    Returns:
        The SHA-256 of what was written, hexadecimal.

    Raises:
        CheckpointError: A value does not fit the number type.
    """
    item = np.dtype(NUMPY_TYPES[dtype]).itemsize
    header: dict[str, Any] = {"__metadata__": {"format": "np"}}
    position = 0
    for name, shape in shapes.items():
        end = position + math.prod(shape) * item
        header[name] = {
            "dtype": _CODES[dtype],
            "shape": list(shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    for part in (struct.pack("<Q", len(text)), text):
        file.write(part)
        digest.update(part)
    for name, array in zip(shapes, arrays, strict=True):
        raw = np.ascontiguousarray(_rounded(array, dtype, name)).tobytes()
        file.write(raw)
        digest.update(raw)
    return digest.hexdigest()


def _rounded(array: Float64, dtype: str, name: str) -> Array:
    """``array`` in the number type ``dtype``, rounded to nearest even."""
    with np.errstate(over="ignore"):
        if dtype == "bfloat16":
            bits = array.astype(np.float32).view(np.uint32)
            rounded: Array = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
            wide: Array = (rounded.astype(np.uint32) << 16).view(np.float32)
        else:
            rounded = wide = array.astype(NUMPY_TYPES[dtype])
    if not np.isfinite(wide).all():
        raise CheckpointError(
            f"{name} has values up to {np.abs(array).max():.4g}, which {dtype} cannot hold; "
            "save as float32"
        )
    return rounded
