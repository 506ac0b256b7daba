"""What each pickle opcode does to the machine; one that is not here is refused.

Source: the meanings are those that CPython documents in ``Lib/pickletools.py``.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from fastglow.checkpoint.inert import Global, Record, TensorRef
from fastglow.checkpoint.machine import Machine
from fastglow.checkpoint.rebuild import HANDLERS, ITEM_COST, ArraySlot, DtypeSlot, hashable
from fastglow.checkpoint.values import VALUES, text_int

Operation = Callable[[Machine], None]

CODES = {opcode.name: ord(opcode.code) for opcode in pickletools.opcodes}
OPERATIONS: list[Operation | None] = [None] * 256


def _op(*names: str) -> Callable[[Operation], Operation]:
    """Registers a function as what the named opcodes do."""

    def register(operation: Operation) -> Operation:
        for name in names:
            OPERATIONS[CODES[name]] = operation
        return operation

    return register


def _push(make: Callable[[Machine], object]) -> Operation:
    """The operation that pushes what ``make`` gives."""

    def operation(machine: Machine) -> None:
        machine.stack.append(make(machine))

    return operation


for _name, _make in VALUES.items():
    _op(_name)(_push(_make))


@_op("PROTO")
def _proto(machine: Machine) -> None:
    version = machine.number(1)
    if version > 5:
        raise ValueError(f"pickle protocol {version} is unknown")


@_op("FRAME")
def _frame(machine: Machine) -> None:
    if machine.number(8) > len(machine.data) - machine.position:
        raise ValueError("a frame is longer than the file")


@_op("MARK")
def _mark(machine: Machine) -> None:
    machine.mark()


@_op("POP")
def _pop(machine: Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.marked()


@_op("POP_MARK")
def _pop_mark(machine: Machine) -> None:
    machine.marked()


@_op("MEMOIZE")
def _memoize(machine: Machine) -> None:
    machine.store(len(machine.memo))


@_op("BINPUT")
def _binput(machine: Machine) -> None:
    machine.store(machine.number(1))


@_op("LONG_BINPUT")
def _long_binput(machine: Machine) -> None:
    machine.store(machine.number(4))


@_op("PUT")
def _put(machine: Machine) -> None:
    machine.store(text_int(machine))


@_op("BINGET")
def _binget(machine: Machine) -> None:
    machine.recall(machine.number(1))


@_op("LONG_BINGET")
def _long_binget(machine: Machine) -> None:
    machine.recall(machine.number(4))


@_op("GET")
def _get(machine: Machine) -> None:
    machine.recall(text_int(machine))


def _tuple(machine: Machine, items: list[Any]) -> None:
    machine.charge(48 + 8 * len(items))
    machine.stack.append(tuple(items))


@_op("TUPLE")
def _tuple_marked(machine: Machine) -> None:
    _tuple(machine, machine.marked())


@_op("TUPLE1")
def _tuple1(machine: Machine) -> None:
    _tuple(machine, [machine.stack.pop()])


@_op("TUPLE2")
def _tuple2(machine: Machine) -> None:
    last, first = machine.stack.pop(), machine.stack.pop()
    _tuple(machine, [first, last])


@_op("TUPLE3")
def _tuple3(machine: Machine) -> None:
    last, middle, first = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    _tuple(machine, [first, middle, last])


@_op("LIST")
def _list(machine: Machine) -> None:
    items = machine.marked()
    machine.charge(56)
    machine.stack.append(items)


@_op("DICT")
def _dict(machine: Machine) -> None:
    items = machine.marked()
    machine.stack.append({})
    machine.set_items(machine.stack[-1], items)


@_op("FROZENSET")
def _frozenset(machine: Machine) -> None:
    items = machine.marked()
    machine.charge(220 + ITEM_COST * len(items))
    machine.stack.append(frozenset(hashable(item) for item in items))


@_op("APPEND")
def _append(machine: Machine) -> None:
    item = machine.stack.pop()
    machine.extend(machine.stack[-1], [item])


@_op("APPENDS")
def _appends(machine: Machine) -> None:
    items = machine.marked()
    machine.extend(machine.stack[-1], items)


@_op("SETITEM")
def _setitem(machine: Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.set_items(machine.stack[-1], [key, value])


@_op("SETITEMS")
def _setitems(machine: Machine) -> None:
    items = machine.marked()
    machine.set_items(machine.stack[-1], items)


@_op("ADDITEMS")
def _additems(machine: Machine) -> None:
    items = machine.marked()
    target = machine.stack[-1]
    if not isinstance(target, set):
        raise ValueError("items are added to something that is no set")
    machine.charge(ITEM_COST * len(items))
    target.update(hashable(item) for item in items)


@_op("GLOBAL")
def _global(machine: Machine) -> None:
    module, name = machine.line(), machine.line()
    machine.push_global(module, name)


@_op("STACK_GLOBAL")
def _stack_global(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.push_global(module, name)


@_op("REDUCE")
def _reduce(machine: Machine) -> None:
    args, callee = machine.stack.pop(), machine.stack.pop()
    handler = HANDLERS.get(callee) if isinstance(callee, Global) else None
    if handler is None:
        raise machine.refusal(callee)
    if not isinstance(args, tuple):
        raise ValueError("arguments are no tuple")
    machine.stack.append(handler(machine.charge, args))


@_op("INST")
def _inst(machine: Machine) -> None:
    module, name = machine.line(), machine.line()
    raise machine.refusal(Global(module, name))


@_op("OBJ")
def _obj(machine: Machine) -> None:
    items = machine.marked()
    raise machine.refusal(items[0])


@_op("EXT1", "EXT2", "EXT4")
def _extension(machine: Machine) -> None:
    raise machine.failure(
        "its pickle uses an extension code, which hides what it would call; nothing was run. "
        "If you trust its maker, ask for the model's state_dict alone"
    )


@_op("NEWOBJ")
def _newobj(machine: Machine) -> None:
    args, cls = machine.stack.pop(), machine.stack.pop()
    _new(machine, cls, args)


@_op("NEWOBJ_EX")
def _newobj_ex(machine: Machine) -> None:
    keywords, args, cls = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    _new(machine, cls, args)
    if keywords:
        machine.set_items(machine.stack[-1], [part for pair in keywords.items() for part in pair])


def _new(machine: Machine, cls: object, args: object) -> None:
    if not isinstance(cls, Global) or not isinstance(args, tuple):
        raise ValueError("an instance has no class name")
    machine.charge(400)
    machine.stack.append(Record(cls, args))


@_op("BUILD")
def _build(machine: Machine) -> None:
    state, target = machine.stack.pop(), machine.stack[-1]
    if isinstance(target, DtypeSlot | ArraySlot):
        target.build(state)
    elif isinstance(target, Record):
        for part in state if isinstance(state, tuple) else (state,):
            _add_state(machine, target, part)
    elif not isinstance(target, dict | TensorRef):
        # A dict is an OrderedDict whose attributes (state_dict's _metadata) say nothing to us.
        raise machine.failure(f"its pickle sets the state of a {type(target).__name__}")


def _add_state(machine: Machine, record: Record, state: object) -> None:
    if not isinstance(state, dict):
        return
    if not record.state:
        record.state = state
        return
    machine.charge(ITEM_COST * len(state))
    record.state = {**record.state, **state}


@_op("BINPERSID")
def _binpersid(machine: Machine) -> None:
    identity = machine.stack.pop()
    if machine.persistent is None or not isinstance(identity, tuple):
        raise ValueError("a persistent id is no torch storage")
    machine.charge(400)
    machine.stack.append(machine.persistent(identity))
