"""Reads pickles without executing anything.

The machine interprets the opcodes itself. A name in the file stays a name
(:class:`~fastglow.checkpoint.inert.Global`); an instance of an unknown class becomes a
:class:`~fastglow.checkpoint.inert.Record`; only the functions listed in ``rebuild.py`` may be
"called", and what runs then is our own handler. Every loop is iterative and every allocation
is charged to a budget, so that a hostile file can neither recurse nor fill the memory.
"""

from __future__ import annotations

import struct
from typing import Any

from fastglow.checkpoint.machine import Buffer, Machine, PersistentLoad
from fastglow.checkpoint.opcodes import CODES, OPERATIONS
from fastglow.errors import CheckpointError

MAX_OPCODES = 2_000_000  # a published WaveGlow with its optimizer needs about 200,000


def unpickle(
    data: Buffer, source: str, position: int = 0, persistent: PersistentLoad | None = None
) -> tuple[Any, int]:
    """The object in a pickle, as inert data.

    Args:
        data: Bytes that hold the pickle; what follows it is not looked at.
        source: The file's name, for messages.
        position: Where in ``data`` the pickle begins, bytes.
        persistent: Resolves persistent ids, which are refused without it.

    Returns:
        The object, and the offset of the first byte behind the pickle.

    Raises:
        CheckpointError: The pickle is damaged, unsafe or too large.
    """
    machine = Machine(data, source, position, persistent)
    try:
        return _run(machine), machine.position
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error) as e:
        what = str(e)[:300]
        if isinstance(e, IndexError):
            what = "it ends early" if machine.position >= len(data) else "its stack is empty"
        raise machine.failure(
            f"damaged or foreign pickle ({what}; at byte {machine.position}); get the file again"
        ) from None


def _run(machine: Machine) -> Any:
    data, stop = machine.data, CODES["STOP"]
    for _ in range(MAX_OPCODES):
        code = data[machine.position]
        machine.position += 1
        if code == stop:
            return machine.stack.pop()
        operation = OPERATIONS[code]
        if operation is None:
            raise ValueError(f"opcode 0x{code:02x} is unknown or not allowed")
        operation(machine)
    raise CheckpointError(
        f"{machine.source}: over {MAX_OPCODES} pickle opcodes; no WaveGlow needs so many"
    )
