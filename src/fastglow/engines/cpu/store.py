"""Packed weights kept on disk between processes, and mapped instead of made again.

Composing the phase matrices takes seconds (161 GFLOP in float64 at 64 channels), mapping and
checking 0.5 GB that the system still holds 0.3 s; processes side by side share the memory.

A file is MAGIC, the length of the header and its SHA-256, the header (JSON), and from the next page
on the numbers of every flow, each flow behind its own SHA-256 in the header.
"""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from fastglow.atomic import replacing
from fastglow.cache import LIMIT_NAME, cache_folder
from fastglow.engines.cpu.ir import Shape
from fastglow.engines.cpu.pack import Float32, PackedFlow
from fastglow.errors import EngineError
from fastglow.plan import Plan

MAGIC = b"fastglow packed\n"
PAGE, LINE = 4096, 64  # bytes: where the numbers begin, and every array
SMALLEST = 1 << 25  # bytes; what is less is packed in no time
LIMIT = 4.0  # GB of all such files, unless LIMIT_NAME says otherwise
PREFIX = "packed-"
ABANDONED = 3600  # seconds after which a part of a file is nobody's
CODE = ("checkpoint", "plan", "engines", "engines/cpu")  # folders, from a file's bytes to packed


class Store:
    """The file of one model's packed weights.

    Args:
        plan: What they are packed from.
        shape: The register tile that they are packed for.
    """

    def __init__(self, plan: Plan, shape: Shape) -> None:
        source, folder, self._limit = plan.weights.provenance, cache_folder(), _limit()
        what = [_code(), source.sha256, source.dialect, plan.conditioning, repr(shape)]
        what.append(json.dumps(plan.config.to_dict(), sort_keys=True))
        key = hashlib.sha256("\0".join(what).encode()).hexdigest()[:24]
        usable = folder is not None and source.sha256 and self._limit
        self._path = folder / f"{PREFIX}{key}" if folder and usable else None

    def load(self, threads: int) -> list[PackedFlow] | None:
        """The flows, or None if they are not there or damaged."""
        if self._path is None or not self._path.exists():
            return None
        try:
            with suppress(OSError):  # a cache that only others may write serves all the same
                os.utime(self._path)  # what was used last goes last
            with self._path.open("rb") as file:
                held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            header, begin = _header(held)
            with ThreadPoolExecutor(threads) as pool:  # which also brings the pages in
                whole = all(pool.map(lambda flow: _intact(held, begin, flow), header["flows"]))
            if whole:
                return [_unpack(held, begin, flow) for flow in header["flows"]]
        except (OSError, ValueError, LookupError, TypeError):
            pass
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        return None

    def save(self, flows: Sequence[PackedFlow]) -> None:
        """Keep the flows, if there is room; the files used longest ago make some."""
        size = sum(array.nbytes for flow in flows for array in flow.arrays)
        if self._path is None or not SMALLEST <= size <= self._limit:
            return
        try:
            if self._path.exists():  # another process was faster, and may be reading
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _make_room(self._path.parent, int(self._limit) - size)
            if shutil.disk_usage(self._path.parent).free < 2 * size:
                return
            with replacing(self._path) as (part,):
                _write(part, flows)
        except OSError:
            pass  # packing again costs seconds, nothing else


@functools.cache
def _code() -> str:
    """A digest of the code that the numbers and their order depend on."""
    digest, root = hashlib.sha256(), resources.files("fastglow")
    for folder in CODE:
        for file in sorted(root.joinpath(folder).iterdir(), key=lambda file: file.name):
            if file.name.endswith(".py"):
                digest.update(file.read_bytes())
    return digest.hexdigest()


def _limit() -> float:
    """Bytes that all files may take.

    Raises:
        EngineError: The variable is no number.
    """
    text = os.environ.get(LIMIT_NAME, str(LIMIT))
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < 1e9:
        raise EngineError(f"{LIMIT_NAME}={text}: expected gigabytes, 0 to keep nothing")
    return 1e9 * limit


def _make_room(folder: Path, room: int) -> None:
    """Remove what was used longest ago until the files fit into ``room`` bytes."""
    for part in folder.glob(".*.part"):  # of a process that was killed while it wrote
        if time.time() - part.stat().st_mtime > ABANDONED:
            part.unlink(missing_ok=True)
    files = sorted((path.stat().st_mtime, path) for path in folder.glob(f"{PREFIX}*"))
    total = sum(path.stat().st_size for _, path in files)
    for _, path in files:
        if total <= room:
            return
        total -= path.stat().st_size
        path.unlink(missing_ok=True)


def _write(path: Path, flows: Sequence[PackedFlow]) -> None:
    described, at = [], 0
    for flow in flows:
        entry, at = _describe(flow, at)
        described.append(entry)
    text = json.dumps({"flows": described}).encode()
    front = MAGIC + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + text
    with path.open("wb") as file:
        file.write(front + bytes(-len(front) % PAGE))
        for flow in flows:
            for array in (*flow.arrays, flow.inverse):
                file.write(array.tobytes())
                file.write(bytes(-array.nbytes % LINE))


def _describe(flow: PackedFlow, at: int) -> tuple[dict[str, Any], int]:
    """A flow's entry in the header, its arrays beginning at ``at``; and where they end."""
    first, digest, places = at, hashlib.sha256(), []
    for array in (*flow.arrays, flow.inverse):
        places.append([at, *array.shape])
        digest.update(array.tobytes())
        digest.update(bytes(-array.nbytes % LINE))
        at += array.nbytes + -array.nbytes % LINE
    table, pointers = flow.table.copy(), []
    for index, array in enumerate(flow.arrays):
        for row, column in np.argwhere(flow.table == array.ctypes.data).tolist():
            pointers.append([row, column, index])
            table[row, column] = 0
    entry = {
        "channels": flow.channels,
        "swapped": flow.swapped,
        "output_rows": flow.output_rows,
        "table": table.tolist(),
        "pointers": pointers,
        "arrays": places,
        "begin": first,
        "end": at,
        "sha256": digest.hexdigest(),
    }
    return entry, at


def _header(held: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The header, and where the numbers begin.

    Raises:
        ValueError: It is damaged.
    """
    start = len(MAGIC) + 8 + 32
    end = start + int.from_bytes(held[len(MAGIC) : len(MAGIC) + 8], "little")
    text = held[start:end]
    if held[: len(MAGIC)] != MAGIC or hashlib.sha256(text).digest() != held[start - 32 : start]:
        raise ValueError("damaged")
    header: dict[str, Any] = json.loads(text)
    return header, end + -end % PAGE


def _intact(held: mmap.mmap, begin: int, entry: dict[str, Any]) -> bool:
    part = memoryview(held)[begin + entry["begin"] : begin + entry["end"]]
    return bool(hashlib.sha256(part).hexdigest() == entry["sha256"])


def _unpack(held: mmap.mmap, begin: int, entry: dict[str, Any]) -> PackedFlow:
    def array(place: list[int]) -> Float32:
        at, *shape = place
        count = int(np.prod(shape))
        return np.frombuffer(held, np.float32, count, begin + at).reshape(shape)

    *arrays, inverse = (array(place) for place in entry["arrays"])
    table = np.array(entry["table"], dtype=np.int64)
    for row, column, index in entry["pointers"]:
        table[row, column] = arrays[index].ctypes.data
    shape = entry["channels"], entry["swapped"], entry["output_rows"]
    return PackedFlow(*shape, inverse, table, tuple(arrays))
