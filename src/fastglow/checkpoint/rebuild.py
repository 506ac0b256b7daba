"""The allow-list: every global that a pickle may call, each mapped to an inert handler of ours.

A handler gets the arguments from the file and the machine's ``charge``, which it calls
with the bytes that it is about to allocate, and returns plain data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastglow.checkpoint.inert import (
    NUMPY_TYPES,
    Array,
    Global,
    Record,
    Storage,
    TensorRef,
    shown,
    view_tensor,
)

Charge = Callable[[int], None]
Handler = Callable[[Charge, tuple[Any, ...]], object]

ITEM_COST = 100  # bytes: a dict or set entry at its worst, resizing included


@dataclass(slots=True, eq=False, repr=False)
class DtypeSlot:
    """A numpy dtype under construction: BUILD brings the byte order.

    Attributes:
        dtype: What is known of it so far.
    """

    dtype: np.dtype[Any]

    def build(self, state: object) -> None:
        """Takes numpy's dtype state ``(version, byte order, ...)``."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise ValueError("a numpy dtype has an unknown state")
        self.dtype = self.dtype.newbyteorder(state[1])


@dataclass(slots=True, eq=False, repr=False)
class ArraySlot:
    """A numpy array under construction: BUILD brings shape, dtype and bytes.

    Attributes:
        value: The array, once built.
    """

    value: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent of each axis."""
        return self.array().shape

    def array(self) -> Array:
        """The numbers [shape].

        Raises:
            ValueError: The file never gave them.
        """
        if self.value is None:
            raise ValueError("a numpy array was never given its numbers")
        return self.value

    def build(self, state: object) -> None:
        """Takes numpy's array state ``(version, shape, dtype, is_fortran, bytes)``."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("a numpy array has an unknown state")
        _, shape, slot, fortran, raw = state
        if not isinstance(slot, DtypeSlot) or not isinstance(raw, bytes | str | bytearray):
            raise ValueError("a numpy array does not hold plain numbers")
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw
        if not isinstance(shape, tuple) or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError("a numpy array has a bad shape")
        if math.prod(shape) * slot.dtype.itemsize != len(raw) or len(shape) > 16:
            raise ValueError(f"a numpy array of {len(raw)} bytes claims another shape")
        flat = np.frombuffer(raw, slot.dtype)
        self.value = flat.reshape(shape, order="F" if fortran else "C")


def _tensor(charge: Charge, args: tuple[Any, ...]) -> object:
    charge(300)
    storage, offset, size, stride = args[:4]
    if not isinstance(storage, Storage):
        raise ValueError("a tensor has no storage")
    return view_tensor(storage, offset, size, stride)


def _tensor_v3(charge: Charge, args: tuple[Any, ...]) -> object:
    charge(300)
    storage, offset, size, stride, _, _, dtype = args[:7]
    if not isinstance(storage, Storage) or not isinstance(dtype, Global):
        raise ValueError("a tensor has no storage or no dtype")
    if dtype.module != "torch" or dtype.name not in NUMPY_TYPES:
        raise ValueError(f"a tensor has the unknown dtype {shown(dtype)}")
    return view_tensor(storage, offset, size, stride, dtype.name)


def _parameter(charge: Charge, args: tuple[Any, ...]) -> object:
    if not args or not isinstance(args[0], TensorRef):
        raise ValueError("a parameter is not a tensor")
    return args[0]


def _typed(charge: Charge, args: tuple[Any, ...]) -> object:
    function, _, inner = args[:3]
    handler = TENSOR_HANDLERS.get(function) if isinstance(function, Global) else None
    if handler is None or not isinstance(inner, tuple):
        raise ValueError(f"a tensor would be rebuilt by {shown(function)}")
    return handler(charge, inner)


def _only(args: tuple[Any, ...]) -> Any:
    """The one argument of a container, or an empty tuple."""
    if len(args) > 1:
        raise ValueError("a container has several arguments")
    value = args[0] if args else ()
    if not isinstance(value, tuple | list | set | dict | frozenset):
        raise ValueError("a container is not made of a container")
    return value


def _set(charge: Charge, args: tuple[Any, ...]) -> object:
    items = _only(args)
    charge(220 + ITEM_COST * len(items))
    return {hashable(item) for item in items}


def _dict(charge: Charge, args: tuple[Any, ...]) -> object:
    items = _only(args)
    charge(64 + ITEM_COST * len(items))
    pairs = items.items() if isinstance(items, dict) else items
    return {hashable(key): value for key, value in pairs}


def _default_dict(charge: Charge, args: tuple[Any, ...]) -> object:
    return _dict(charge, args[1:])


def _sequence(charge: Charge, args: tuple[Any, ...]) -> object:
    items = _only(args)
    charge(56 + 8 * len(items))
    return tuple(items)


def _list(charge: Charge, args: tuple[Any, ...]) -> object:
    items = _only(args)
    charge(56 + 8 * len(items))
    return list(items)


def _text(charge: Charge, args: tuple[Any, ...]) -> object:
    if not all(isinstance(part, str | int) for part in args):
        raise ValueError("a path or device is not made of strings")
    charge(sum(60 + len(str(part)) for part in args))
    return "/".join(str(part) for part in args)


def _encode(charge: Charge, args: tuple[Any, ...]) -> object:
    text, *encoding = args
    if not isinstance(text, str) or encoding not in (["latin1"], ["latin-1"], ["bytes"]):
        raise ValueError("bytes are not stored as latin-1 text")
    charge(40 + len(text))
    return text.encode("latin-1")


def _bytes(charge: Charge, args: tuple[Any, ...]) -> object:
    if args and (len(args) > 1 or not isinstance(args[0], bytes)):
        raise ValueError("bytes are not made of bytes")
    return args[0] if args else b""


def _reconstructor(charge: Charge, args: tuple[Any, ...]) -> object:
    cls, base, state = args
    if not isinstance(cls, Global) or base != Global("builtins", "object") or state is not None:
        raise ValueError(f"copyreg._reconstructor of {shown(cls)} on {shown(base)}")
    charge(400)
    return Record(cls)


def _nothing(charge: Charge, args: tuple[Any, ...]) -> object:
    return None


def _numpy_dtype(charge: Charge, args: tuple[Any, ...]) -> object:
    if not args or not isinstance(args[0], str) or len(args[0]) > 8:
        raise ValueError("a numpy dtype has no name")
    if args[0][:1] not in "biufc?" or args[0][1:].strip("0123456789"):
        raise ValueError(f"numpy dtype {shown(args[0])} is not a plain number")
    charge(200)
    return DtypeSlot(np.dtype(args[0]))


def _numpy_scalar(charge: Charge, args: tuple[Any, ...]) -> object:
    slot, raw = args
    raw = raw.encode("latin-1") if isinstance(raw, str) else raw
    if not isinstance(slot, DtypeSlot) or not isinstance(raw, bytes):
        raise ValueError("a numpy scalar is not a plain number")
    return np.frombuffer(raw, slot.dtype, count=1)[0].item()


def _numpy_array(charge: Charge, args: tuple[Any, ...]) -> object:
    if not args or args[0] != Global("numpy", "ndarray"):
        raise ValueError("a numpy array is of an unknown class")
    charge(200)
    return ArraySlot()


def _numpy_from_buffer(charge: Charge, args: tuple[Any, ...]) -> object:
    raw, slot, shape, order, *axes = args
    charge(200)
    array = ArraySlot()
    array.build((1, shape, slot, order == "F", raw))
    if order == "K" and axes and axes[0] is not None:
        array.value = array.array().transpose(axes[0])
    return array


TENSOR_HANDLERS: dict[Global, Handler] = {
    Global("torch._utils", "_rebuild_tensor"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    Global("torch._utils", "_rebuild_parameter"): _parameter,
    Global("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}

HANDLERS: dict[Global, Handler] = {
    **TENSOR_HANDLERS,
    Global("torch._tensor", "_rebuild_from_type_v2"): _typed,
    Global("torch.nn.parameter", "Parameter"): _parameter,
    # Modules pickled before PyTorch 1.2 name their backend so.
    Global("torch.nn.backends.thnn", "_get_thnn_function_backend"): _nothing,
    Global("torch", "Size"): _sequence,
    Global("torch", "device"): _text,
    Global("collections", "OrderedDict"): _dict,
    Global("collections", "defaultdict"): _default_dict,
    Global("builtins", "set"): _set,
    Global("builtins", "frozenset"): _set,
    Global("builtins", "dict"): _dict,
    Global("builtins", "list"): _list,
    Global("builtins", "tuple"): _sequence,
    Global("builtins", "bytes"): _bytes,
    Global("builtins", "bytearray"): _bytes,
    Global("copyreg", "_reconstructor"): _reconstructor,
    Global("_codecs", "encode"): _encode,
    Global("numpy", "dtype"): _numpy_dtype,
    **{
        Global(f"numpy.{core}.multiarray", name): handler
        for core in ("core", "_core")
        for name, handler in (("scalar", _numpy_scalar), ("_reconstruct", _numpy_array))
    },
    Global("numpy.core.numeric", "_frombuffer"): _numpy_from_buffer,
    Global("numpy._core.numeric", "_frombuffer"): _numpy_from_buffer,
    **{
        Global(module, name): _text
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
}

_SCALARS = (str, int, float, bytes, Global, Record, TensorRef, type(None))


def hashable(key: Any) -> Any:
    """``key``, if it may be a key of a dict or a member of a set.

    Tuples must be flat: hashing nested ones recurses without bound, or for ever.

    Raises:
        ValueError: It may not.
    """
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) > 16 or not all(isinstance(part, _SCALARS) for part in parts):
        raise ValueError("a key of a dict or a member of a set is no plain value")
    return key
