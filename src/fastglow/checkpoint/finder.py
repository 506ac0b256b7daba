"""Finds the model in what a checkpoint holds, and what is said of it beside its tensors."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from fastglow.checkpoint.identify import name_model
from fastglow.checkpoint.inert import LazyTensor, Record, TensorRef
from fastglow.checkpoint.rebuild import ArraySlot
from fastglow.errors import CheckpointError

MAX_DEPTH = 32
MAX_NODES = 20_000  # dicts, records or submodules looked at
MAX_FIELDS = 500_000  # of all of them together
MAX_CANDIDATES = 64  # sets of tensors looked at

# The parts that every WaveGlow has; two of them under one prefix make a model.
_PARTS = re.compile(r"(?:^|\.)(upsample|WN\.0|convinv\.0)\.")
# Keys under which a checkpoint keeps what is no model.
_SKIPPED = re.compile(r"optim|sched|scaler|^amp|loss|rng", re.IGNORECASE)
_PREFERRED = ("model", "state_dict", "model_state_dict", "waveglow", "generator", "module")


@dataclass(slots=True)
class Found:
    """A model as found in a file.

    Attributes:
        tensors: By name, the prefix taken off.
        form: How it was stored, for example "state_dict".
        classes: "module.Class" of each pickled submodule, by its path ("" is the root).
        attributes: Attributes of each pickled submodule, by its path.
        prefix: What stood before every name.
        settings: Dictionaries found beside the model.
    """

    tensors: dict[str, LazyTensor]
    form: str = "state_dict"
    classes: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, Mapping[Any, Any]] = field(default_factory=dict)
    prefix: str = ""
    settings: list[Mapping[Any, Any]] = field(default_factory=list)


def find_model(root: Any, source: str) -> Found:
    """The first WaveGlow in the tree of objects ``root``, the usual places first.

    Raises:
        CheckpointError: There is none; the message says what the file looks like instead.
    """
    names: list[str] = []
    candidates = (found for node in _nodes(root) if (found := _as_model(node, source)))
    for found in islice(candidates, MAX_CANDIDATES):
        names += found.tensors
        prefix = _prefix(found.tensors, source)
        if prefix is not None:
            _strip(found, prefix)
            found.settings = [_fields(node) for node in _nodes(root) if not _modules(node)]
            return found
    raise CheckpointError(f"{source}: no WaveGlow in it; {_description(root, names)}")


def is_tensor(value: object) -> bool:
    """Whether ``value`` is a tensor or a numpy array from a file."""
    if isinstance(value, ArraySlot):
        return value.value is not None
    return isinstance(value, TensorRef)


def _fields(node: Any) -> Mapping[Any, Any]:
    """The named things in a dict or a record."""
    if isinstance(node, Record):
        return node.entries or node.state
    return node if isinstance(node, Mapping) else {}


def _nodes(root: Any) -> Iterator[Any]:
    """Every dict and record from the root down, breadth first, in the order of preference."""
    queue, seen, fields_left = deque([(root, 0)]), {id(root)}, MAX_FIELDS
    while queue and len(seen) < MAX_NODES and fields_left > 0:
        node, depth = queue.popleft()
        if isinstance(node, list | tuple) and depth < 2:
            children = list(node)[:16]
        elif isinstance(node, Mapping | Record):
            yield node
            if depth >= 4 or _modules(node):
                continue
            fields = _fields(node)
            fields_left -= len(fields)
            first = [fields[key] for key in _PREFERRED if key in fields]
            children = first + [v for k, v in fields.items() if not _SKIPPED.search(str(k)[:80])]
        else:
            continue
        for child in children:
            if isinstance(child, Mapping | Record | list | tuple) and id(child) not in seen:
                seen.add(id(child))
                queue.append((child, depth + 1))


def _modules(node: Any) -> bool:
    return isinstance(node, Record) and isinstance(node.state.get("_modules"), dict)


def _as_model(node: Any, source: str) -> Found | None:
    if isinstance(node, Record) and _modules(node):
        return _flatten(node, source)
    tensors = {k: v for k, v in _fields(node).items() if isinstance(k, str) and is_tensor(v)}
    return Found(tensors) if tensors else None


def _flatten(root: Record, source: str) -> Found:
    """The tensors and attributes of a pickled ``torch.nn.Module``, by path."""
    found = Found({}, "pickled module")
    pending, visited = [("", root)], 0
    while pending:
        path, module = pending.pop()
        visited += 1
        found.classes[path], found.attributes[path] = str(module.cls), module.state
        dot = f"{path}." if path else ""
        for group in ("_parameters", "_buffers"):
            for name, value in _dict(module.state.get(group)).items():
                if isinstance(name, str) and is_tensor(value):
                    found.tensors[dot + name] = value
        for name, child in _dict(module.state.get("_modules")).items():
            if isinstance(name, str) and isinstance(child, Record) and path.count(".") < MAX_DEPTH:
                pending.append((dot + name[:80], child))
        if visited + len(found.tensors) + len(pending) > MAX_NODES:
            raise CheckpointError(f"{source}: over {MAX_NODES} submodules; no WaveGlow has so many")
    return found


def _dict(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _prefix(names: Mapping[str, LazyTensor], source: str) -> str | None:
    """What stands before ``upsample``, ``WN`` and ``convinv``, or None if they do not occur."""
    parts: dict[str, set[str]] = {}
    for name in names:
        match = _PARTS.search(name)
        if match:
            parts.setdefault(name[: match.start(1)], set()).add(match.group(1))
    models = sorted(prefix for prefix, seen in parts.items() if len(seen) >= 2)
    if len(models) > 1:
        raise CheckpointError(
            f"{source}: {len(models)} WaveGlows in it, under {models[0][:60]!a} and "
            f"{models[1][:60]!a}; save the one that you want alone"
        )
    return models[0] if models else None


def _strip(found: Found, prefix: str) -> None:
    """Takes ``prefix`` off every name and path; what does not have it is no part of the model."""
    found.prefix, size = prefix, len(prefix)
    found.tensors = {k[size:]: v for k, v in found.tensors.items() if k.startswith(prefix)}
    kept = {path: f"{path}."[size:].rstrip(".") for path in found.classes}
    kept = {path: kept[path] for path in kept if not prefix or f"{path}.".startswith(prefix)}
    found.classes = {short: found.classes[path] for path, short in kept.items()}
    found.attributes = {short: found.attributes[path] for path, short in kept.items()}


def _description(root: Any, names: list[str]) -> str:
    """What the file looks like, in half a sentence."""
    if is_tensor(root):
        return f"it is a single tensor of shape {list(root.shape)}, perhaps a mel: give it as such"
    model = name_model(names)
    if model is not None:
        return f"it looks like a {model}: give a WaveGlow checkpoint"
    if names:
        return f"its tensors are named like {names[0][:80]!a}: give a WaveGlow checkpoint"
    if isinstance(root, Mapping) and root:
        keys = ", ".join(ascii(str(key)[:30]) for key in list(root)[:5])
        return f"it holds {keys}: give a WaveGlow checkpoint"
    return f"it holds a {type(root).__name__}: give a WaveGlow checkpoint"
