"""What a pickle's objects become: plain data that holds names and numbers and can do nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

MAX_DIMENSIONS = 16

# Little-endian numpy type of each torch dtype. numpy has no bfloat16: its bits are read
# as uint16 and widened to float32, which is exact.
NUMPY_TYPES: dict[str, str] = {
    "float64": "<f8",
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": "<u2",
    "int64": "<i8",
    "int32": "<i4",
    "int16": "<i2",
    "int8": "|i1",
    "uint8": "|u1",
    "bool": "|b1",
    "complex64": "<c8",
    "complex128": "<c16",
}

STORAGE_DTYPES: dict[str, str] = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
    "_UntypedStorage": "uint8",
}


class LazyTensor(Protocol):
    """A tensor whose shape is known and whose numbers are read when asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent of each axis."""

    def array(self) -> Array:
        """The numbers [shape]."""


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function, never resolved."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def shown(value: object, limit: int = 100) -> str:
    """``value`` from a file as it may stand in a message: one printable line, cut to ``limit``."""
    if isinstance(value, str | Global):
        return str(value)[:limit].encode("unicode_escape").decode("ascii")[:limit]
    if value is None or isinstance(value, int | float):
        return str(value)[:limit]
    return f"a {type(value).__name__}"


@dataclass(slots=True, eq=False, repr=False)  # a repr of cyclic data would never end
class Record:
    """An instance of a class that we do not know, as stored.

    Attributes:
        cls: The class's name.
        args: What its ``__new__`` would have been given.
        state: What ``__setstate__`` or ``__dict__`` would have been given.
        elements: What would have been appended (a list's subclass).
        entries: What would have been set by key (a dict's subclass).
    """

    cls: Global
    args: tuple[Any, ...] = ()
    state: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Storage:
    """A run of numbers somewhere in the file, read when asked for.

    Attributes:
        key: Its name in the file.
        dtype: torch's name of the number type ("uint8" if untyped).
        numel: Numbers it holds.
        read: Gives its bytes [numel * itemsize] uint8.
        big_endian: Whether its numbers are stored high byte first.
    """

    key: str
    dtype: str
    numel: int
    read: Callable[[], NDArray[np.uint8]]
    big_endian: bool = False


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TensorRef:
    """A tensor that is not read until asked for: a strided view of a storage.

    Attributes:
        storage: Where its numbers are.
        dtype: torch's name of the number type.
        offset: Of its first number in the storage, in numbers.
        shape: Extent of each axis.
        stride: Step of each axis, in numbers.
    """

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self) -> Array:
        """The numbers [shape]: a read-only view where the file allows, bfloat16 as float32."""
        kind = np.dtype(NUMPY_TYPES[self.dtype])
        if self.storage.big_endian:
            kind = kind.newbyteorder(">")
        if math.prod(self.shape) == 0:
            return np.zeros(self.shape, kind)
        view: Array = np.ndarray(
            self.shape,
            kind,
            self.storage.read(),
            self.offset * kind.itemsize,
            tuple(step * kind.itemsize for step in self.stride),
        )
        if self.storage.big_endian:
            view = view.astype(kind.newbyteorder("="))
        return widen_bfloat16(view) if self.dtype == "bfloat16" else view


def widen_bfloat16(bits: Array) -> Array:
    """float32 with the same values as the bfloat16 numbers whose ``bits`` are uint16."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def view_tensor(
    storage: Storage, offset: object, shape: object, stride: object, dtype: str | None = None
) -> TensorRef:
    """A tensor over ``storage``, if the storage holds every number of it.

    Raises:
        ValueError: It reaches outside the storage, or its geometry makes no sense.
    """
    dtype = storage.dtype if dtype is None else dtype
    sizes, steps, (first,) = _extents(shape), _extents(stride), _extents((offset,))
    if len(sizes) != len(steps) or len(sizes) > MAX_DIMENSIONS:
        raise ValueError(f"a tensor has {len(sizes)} sizes but {len(steps)} strides")
    item = np.dtype(NUMPY_TYPES[dtype]).itemsize
    held = storage.numel * np.dtype(NUMPY_TYPES[storage.dtype]).itemsize // item
    numel = math.prod(sizes)
    last = first + sum((n - 1) * step for n, step in zip(sizes, steps, strict=True))
    if numel and (last >= held or numel > held):
        raise ValueError(
            f"a tensor of shape {list(sizes)}, stride {list(steps)} and offset {first} does not "
            f"fit its storage {shown(storage.key, 40)} of {held} numbers"
        )
    return TensorRef(storage, dtype, first, sizes, steps)


def _extents(values: object) -> tuple[int, ...]:
    """Sizes, strides or an offset: integers from 0 up, small enough for int64."""
    if not isinstance(values, tuple | list):
        raise ValueError("a tensor's geometry is not a tuple")
    if len(values) > MAX_DIMENSIONS:
        raise ValueError(f"a tensor has {len(values)} axes; at most {MAX_DIMENSIONS} make sense")
    for value in values:
        if type(value) is not int or not 0 <= value < 2**48:
            raise ValueError(f"a tensor's size, stride or offset is {shown(value)}")
    return tuple(values)
