"""The log of a run: a JSON object a line, which a resumed run goes on with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastglow.atomic import write_whole


class Journal:
    """Appends to a file, each line at once.

    Args:
        path: The file; an interrupted run's lines after step ``done`` are dropped, because this
            run writes them again.
        done: Steps done.
    """

    def __init__(self, path: Path, done: int) -> None:
        self.path = path
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if _step(line) <= done] if done else []
        if len(kept) < len(lines):
            write_whole(path, kept)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """One line: ``{"kind": ..., "step": ..., ...}``; JSON has null for what is not finite."""
        known = {name: None if _bad(value) else value for name, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **known}) + "\n")


def _bad(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _step(line: bytes) -> float:
    """The step of a line; none that a kill cut short counts."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
