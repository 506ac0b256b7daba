"""Both containers that ``torch.save`` has written: the zip archive, and before 1.6 the stream.

Source: the formats are those of PyTorch's ``torch/serialization.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.checkpoint.archive import Archive
from fastglow.checkpoint.inert import NUMPY_TYPES, STORAGE_DTYPES, Global, Storage, shown
from fastglow.checkpoint.machine import Buffer
from fastglow.checkpoint.unpickle import unpickle
from fastglow.errors import CheckpointError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001

Read = Callable[[], NDArray[np.uint8]]


def read_zip(data: Buffer, source: str) -> Any:
    """The object that ``torch.save`` wrote as a zip archive; its tensors stay in the file.

    Args:
        data: The whole file.
        source: The file's name, for messages.

    Returns:
        Inert data (:mod:`fastglow.checkpoint.inert`).

    Raises:
        CheckpointError: The file is damaged, unsafe or no torch archive.
    """
    archive = Archive(data, source)
    pickles = [name for name in archive.entries if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise CheckpointError(f"{source}: a zip archive, but {_other_zip(archive)}")
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in archive.entries:
        raise CheckpointError(
            f"{source}: a TorchScript program; save its state_dict with torch.save and load that"
        )
    big_endian = False
    if f"{prefix}byteorder" in archive.entries:
        order = archive.read(f"{prefix}byteorder")[:16].tobytes()
        if order not in (b"little", b"big"):
            raise CheckpointError(f"{source}: unknown byte order {order!a}; get the file again")
        big_endian = order == b"big"

    def persistent(identity: tuple[Any, ...]) -> Storage:
        dtype, key, numel = _storage_fields(identity)
        name = f"{prefix}data/{key}"
        expected = numel * np.dtype(NUMPY_TYPES[dtype]).itemsize
        held = archive.entries[name].size if name in archive.entries else None
        if held != expected:
            raise CheckpointError(
                f"{source}: storage {shown(key)} needs {expected} bytes, but the archive holds "
                f"{'none' if held is None else held}; get the file again"
            )
        return Storage(key, dtype, numel, lambda: archive.read(name), big_endian)

    pickled = archive.read(pickles[0]).tobytes()
    return unpickle(pickled, source, persistent=persistent)[0]


def _other_zip(archive: Archive) -> str:
    names = list(archive.entries)
    if names and all(name.endswith(".npy") for name in names):
        return "of NumPy arrays (.npz): give a mel as such where a mel is asked for"
    return "not one that torch.save wrote (it has no data.pkl); give the checkpoint itself"


def read_stream(data: Buffer, source: str) -> tuple[Any, str]:
    """The object in a stream of pickles: PyTorch's before 1.6, or a lone pickle.

    Args:
        data: The whole file.
        source: The file's name, for messages.

    Returns:
        Inert data (:mod:`fastglow.checkpoint.inert`), and the container's name.

    Raises:
        CheckpointError: The file is damaged or unsafe.
    """
    first, position = unpickle(data, source)
    if type(first) is not int or first != MAGIC:
        return first, "pickle"
    protocol, position = unpickle(data, source, position)
    system, position = unpickle(data, source, position)
    if type(protocol) is not int or protocol != PROTOCOL or not isinstance(system, dict):
        raise CheckpointError(f"{source}: unknown torch protocol {shown(protocol)}")
    if system.get("little_endian") is not True:
        raise CheckpointError(f"{source}: written on a big-endian machine; save it again elsewhere")
    stream = _Stream(data, source)
    root, position = unpickle(data, source, position, stream.persistent)
    keys, position = unpickle(data, source, position)
    stream.locate(keys, position)
    return root, "torch legacy"


class _Stream:
    """The storages that follow the pickles, whose places are known only once all are named."""

    def __init__(self, data: Buffer, source: str) -> None:
        self._data, self._source = data, source
        self._declared: dict[str, tuple[int, int]] = {}  # numbers and bytes a number, by key
        self._found: dict[str, int] = {}  # offset in the file, by key

    def persistent(self, identity: tuple[Any, ...]) -> object:
        if len(identity) == 4 and identity[0] == "module" and isinstance(identity[1], Global):
            return identity[1]  # a class, with its source text for information
        dtype, key, numel = _storage_fields(identity[:5])
        item = np.dtype(NUMPY_TYPES[dtype]).itemsize
        if self._declared.setdefault(key, (numel, item)) != (numel, item):
            raise ValueError(f"storage {shown(key)} has two sizes")
        first, count = 0, numel
        if len(identity) > 5 and identity[5] is not None:
            _, first, count = identity[5]
            if type(first) is not int or type(count) is not int or min(first, count) < 0:
                raise ValueError(f"a view of storage {shown(key)} has no size")
            if first + count > numel:
                raise ValueError(f"a view reaches outside storage {shown(key)}")
        return Storage(key, dtype, count, self._reader(key, first * item, count * item))

    def _reader(self, key: str, start: int, size: int) -> Read:
        return lambda: np.frombuffer(self._data, np.uint8, size, self._found[key] + start)

    def locate(self, keys: object, position: int) -> None:
        """Finds each storage: a 64-bit count, then the numbers, one storage after another."""
        if not isinstance(keys, list) or {*map(shown, keys)} != {*map(shown, self._declared)}:
            raise CheckpointError(f"{self._source}: its list of storages is damaged")
        for key in keys:
            if key not in self._declared:
                raise CheckpointError(f"{self._source}: its list of storages is damaged")
            numel, item = self._declared[key]
            held = int.from_bytes(self._data[position : position + 8], "little", signed=True)
            self._found[key] = position + 8
            position += 8 + numel * item
            if held != numel or position > len(self._data):
                raise CheckpointError(
                    f"{self._source}: storage {shown(key)} should hold {numel} numbers, but the "
                    "file ends early or disagrees; get the file again"
                )


def _storage_fields(identity: tuple[Any, ...]) -> tuple[str, str, int]:
    """dtype, key and count of ``("storage", class, key, location, count)``.

    Raises:
        ValueError: The persistent id is something else.
    """
    if len(identity) != 5 or identity[0] != "storage" or not isinstance(identity[1], Global):
        raise ValueError("a persistent id is no torch storage")
    cls, key, numel = identity[1], identity[2], identity[4]
    if cls.module not in ("torch", "torch.cuda", "torch.storage") or cls.name not in STORAGE_DTYPES:
        raise ValueError(f"storage class {shown(cls)} is unknown")
    if not isinstance(key, str) or type(numel) is not int or not 0 <= numel < 2**48:
        raise ValueError("a torch storage has no key or no size")
    return STORAGE_DTYPES[cls.name], key, numel
