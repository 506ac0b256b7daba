"""The state of the pickle machine: stack, marks, memo, and the budget that bounds them."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

from fastglow.checkpoint.inert import Global, Record, shown
from fastglow.checkpoint.rebuild import ITEM_COST, hashable
from fastglow.errors import CheckpointError

Buffer = bytes | mmap.mmap
PersistentLoad = Callable[[tuple[Any, ...]], object]

MAX_MARKS = 1_000
MAX_LINE = 65_536
BASE_BUDGET = 20_000_000  # bytes of Python objects, on top of the pickle's own size


class Machine:
    """What the opcodes work on.

    Attributes:
        data: The bytes that hold the pickle.
        source: The file's name, for messages.
        position: Offset of the next byte to read.
        stack: Objects since the last mark.
        memo: Objects that later opcodes may refer to.
        persistent: Resolves persistent ids, if any are allowed.
    """

    def __init__(
        self, data: Buffer, source: str, position: int, persistent: PersistentLoad | None
    ) -> None:
        self.data = data
        self.position = position
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.persistent = persistent
        self.source = source
        self._marks: list[list[Any]] = []
        self._budget = BASE_BUDGET + len(data) - position

    def charge(self, size: int) -> None:
        """Takes ``size`` bytes from the budget.

        Raises:
            CheckpointError: The budget is spent.
        """
        self._budget -= size
        if self._budget < 0:
            raise self.failure("its pickle would fill the memory; do not use this file")

    def failure(self, what: str) -> CheckpointError:
        """The error that says ``what`` of this file."""
        return CheckpointError(f"{self.source}: {what}")

    def refusal(self, callee: object) -> CheckpointError:
        """The error for a pickle that would call ``callee``."""
        return self.failure(
            f"its pickle would call {shown(callee)}, which could run code; nothing was run. "
            "If you trust its maker, ask for the model's state_dict alone"
        )

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes, charged.

        Raises:
            ValueError: The data ends before.
        """
        start, end = self.position, self.position + size
        if end > len(self.data):
            self.position = len(self.data)
            raise ValueError("it ends early")
        self.charge(size + 60)
        self.position = end
        return self.data[start:end]

    def number(self, size: int) -> int:
        """The next ``size`` bytes as an unsigned little-endian integer."""
        start = self.position
        self.position += size
        return int.from_bytes(self.data[start : self.position], "little")

    def line(self) -> str:
        """The text up to the next newline.

        Raises:
            ValueError: There is no newline soon, or the text is no UTF-8.
        """
        return self.raw_line().decode("utf-8")

    def raw_line(self) -> bytes:
        """The bytes up to the next newline.

        Raises:
            ValueError: There is no newline soon.
        """
        end = self.data.find(b"\n", self.position, self.position + MAX_LINE)
        if end < 0:
            raise ValueError("a line has no end")
        line = self.take(end - self.position)
        self.position += 1
        return line

    def mark(self) -> None:
        """Opens a container: what follows is stacked apart.

        Raises:
            ValueError: Too many are open.
        """
        if len(self._marks) >= MAX_MARKS:
            raise ValueError(f"over {MAX_MARKS} containers stand open")
        self._marks.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        """Closes a container: what was stacked since the last mark."""
        items, self.stack = self.stack, self._marks.pop()
        return items

    def store(self, index: int) -> None:
        """Remembers the top of the stack as ``index``."""
        if index not in self.memo:
            self.charge(ITEM_COST)
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        """Pushes what was remembered as ``index``.

        Raises:
            ValueError: Nothing was.
        """
        if index not in self.memo:
            raise ValueError(f"memo {index} is empty")
        self.stack.append(self.memo[index])

    def push_global(self, module: object, name: object) -> None:
        """Pushes a name, unresolved.

        Raises:
            ValueError: It is made of something other than strings.
        """
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a global's name is no string")
        self.charge(120)
        # What Python 2 called them.
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        self.stack.append(Global(module, name))

    def set_items(self, target: Any, flat: list[Any]) -> None:
        """Sets the keys and values that alternate in ``flat`` on a dict or a record.

        Raises:
            ValueError: ``target`` is neither, or a key is no plain value.
        """
        if isinstance(target, Record):
            target = target.entries
        if not isinstance(target, dict) or len(flat) % 2:
            raise ValueError("items are set on something that is no dict")
        self.charge(ITEM_COST * len(flat) // 2)
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            target[hashable(key)] = value

    def extend(self, target: Any, items: list[Any]) -> None:
        """Appends ``items`` to a list or a record.

        Raises:
            ValueError: ``target`` is neither.
        """
        if isinstance(target, Record):
            target = target.elements
        if not isinstance(target, list):
            raise ValueError("items are appended to something that is no list")
        self.charge(16 * len(items))
        target.extend(items)
