"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from fastglow.errors import FastglowError, InputError, OutputError

# A disk or a quota that is full, a place that is read-only or not the user's.
HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def replacing(*targets: Path) -> Iterator[tuple[Path, ...]]:
    """Paths to write in place of ``targets``, moved there together once the body ends.

    An error, a full disk or a kill in the middle leaves what was there before; only a kill
    leaves hidden ``.part`` files behind.

    Args:
        targets: Files to make or replace; their folders must exist.

    Raises:
        OSError: A file cannot be moved into place.
    """
    parts = tuple(target.with_name(f".{uuid4().hex}.part") for target in targets)
    try:
        yield parts
        for part, target in zip(parts, targets, strict=True):
            os.replace(part, target)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


@contextmanager
def writing_whole(path: Path) -> Iterator[Path]:
    """A path to write in place of ``path``, moved there once the body ends.

    Raises:
        InputError: It cannot be written; nothing was changed.
        OutputError: And neither can any other file there.
    """
    try:
        with replacing(path) as (part,):
            yield part
    except FastglowError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        kind = OutputError if getattr(error, "errno", None) in HOPELESS else InputError
        raise kind(f"{path}: cannot be written ({reason}); nothing was changed") from None


def write_whole(path: Path, parts: Iterable[bytes]) -> None:
    """Write one file of these bytes.

    Raises:
        InputError: It cannot be written; nothing was changed.
        OutputError: And neither can any other file there.
    """
    with writing_whole(path) as part, part.open("wb") as file:
        file.writelines(parts)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises:
        InputError: It cannot be made.
        OutputError: And neither can any other there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        kind = OutputError if error.errno in HOPELESS else InputError
        raise kind(f"{path}: cannot make this folder ({error.strerror})") from None
