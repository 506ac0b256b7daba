"""The voices in the box."""

from __future__ import annotations

import os
from pathlib import Path

from fastglow.errors import InputError

FOLDER = Path(__file__).parent
DEFAULT = "glow-64"


def names() -> list[str]:
    """The shipped voices, the default first."""
    found = sorted(path.parent.name for path in FOLDER.glob("*/config.json"))
    return sorted(found, key=lambda name: name != DEFAULT)


def find_voice(source: str | os.PathLike[str] | None) -> Path:
    """The path of a shipped voice's folder, or of the user's own checkpoint.

    Raises:
        InputError: It is neither a file or folder nor the name of a voice.
    """
    name = DEFAULT if source is None else os.fspath(source)
    if Path(name).exists():
        return Path(name)
    if name in names():
        return FOLDER / name
    raise InputError(
        f"{name}: no such file or folder, and no shipped voice of that name "
        f"(there is {', '.join(names())})"
    )
