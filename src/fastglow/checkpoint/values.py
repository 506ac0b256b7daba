"""The opcodes that push plain values, and what each pushes.

Source: the meanings are those that CPython documents in ``Lib/pickletools.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from fastglow.checkpoint.machine import Machine

MAX_INT_BYTES = 32


def _charged(size: int, make: Callable[[], object]) -> Callable[[Machine], object]:
    def made(machine: Machine) -> object:
        machine.charge(size)
        return make()

    return made


def text_int(machine: Machine) -> int:
    """The next line as a decimal integer.

    Raises:
        ValueError: It is none, or too long.
    """
    line = machine.line().removesuffix("L")
    if len(line) > 2 * MAX_INT_BYTES:
        raise ValueError("an integer is too long")
    return int(line)


def _int_or_bool(machine: Machine) -> object:
    if machine.data[machine.position : machine.position + 3] in (b"00\n", b"01\n"):
        return machine.line() == "01"
    return text_int(machine)


def _signed(machine: Machine, size: int) -> int:
    if size > MAX_INT_BYTES:
        raise ValueError(f"an integer of {size} bytes")
    return int.from_bytes(machine.take(size), "little", signed=True)


def _float(machine: Machine) -> object:
    return struct.unpack(">d", machine.take(8))[0]


def _sized(width: int, decode: str | None) -> Callable[[Machine], object]:
    """Bytes or text whose length stands before it in ``width`` bytes."""

    def read(machine: Machine) -> object:
        raw = machine.take(machine.number(width))
        if decode is None:
            return raw
        machine.charge(3 * len(raw))  # a character may take four bytes
        return raw.decode(decode, "surrogatepass")

    return read


def _quoted(machine: Machine) -> object:
    line = machine.line().strip()
    if len(line) < 2 or line[0] not in "'\"" or line[-1] != line[0] or "\\" in line:
        raise ValueError("a quoted string is malformed")
    return line[1:-1]


VALUES: dict[str, Callable[[Machine], object]] = {
    "NONE": lambda machine: None,
    "NEWTRUE": lambda machine: True,
    "NEWFALSE": lambda machine: False,
    "BININT1": lambda machine: machine.number(1),
    "BININT2": lambda machine: machine.number(2),
    "BININT": lambda machine: _signed(machine, 4),
    "INT": _int_or_bool,
    "LONG": text_int,
    "LONG1": lambda machine: _signed(machine, machine.number(1)),
    "LONG4": lambda machine: _signed(machine, machine.number(4)),
    "FLOAT": lambda machine: float(machine.line()),
    "BINFLOAT": _float,
    "STRING": _quoted,
    "UNICODE": lambda machine: machine.raw_line().decode("raw-unicode-escape"),
    # Python 2's strings may be text or bytes: latin-1 keeps either.
    "SHORT_BINSTRING": lambda machine: machine.take(machine.number(1)).decode("latin-1"),
    "BINSTRING": lambda machine: machine.take(machine.number(4)).decode("latin-1"),
    "SHORT_BINUNICODE": _sized(1, "utf-8"),
    "BINUNICODE": _sized(4, "utf-8"),
    "BINUNICODE8": _sized(8, "utf-8"),
    "SHORT_BINBYTES": _sized(1, None),
    "BINBYTES": _sized(4, None),
    "BINBYTES8": _sized(8, None),
    "BYTEARRAY8": _sized(8, None),
    "EMPTY_TUPLE": lambda machine: (),
    "EMPTY_LIST": _charged(56, list),
    "EMPTY_DICT": _charged(64, dict),
    "EMPTY_SET": _charged(220, set),
    "DUP": lambda machine: machine.stack[-1],
}
