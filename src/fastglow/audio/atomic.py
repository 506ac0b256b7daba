"""Files written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from fastglow.errors import InputError


def write_whole(path: Path, parts: Iterable[bytes]) -> None:
    """Writes a file beside its final place and moves it there once it is complete.

    A full disk, an error or a kill in the middle leaves what was there before; only a kill
    leaves a hidden ``.part`` file behind.

    Args:
        path: The file to make or replace; its folder must exist.
        parts: The content.

    Raises:
        InputError: The file cannot be written.
    """
    part = path.with_name(f".{uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            file.writelines(parts)
        os.replace(part, path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be written ({reason}); nothing was changed") from None
    finally:
        part.unlink(missing_ok=True)
