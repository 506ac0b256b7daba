"""What is kept on disk between processes: where, and compiled code."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fastglow.atomic import replacing

LIMIT_NAME = "FASTGLOW_CACHE_GB"  # of the variable that limits the packed weights


def cache_folder() -> Path | None:
    """``fastglow`` in ``$FASTGLOW_CACHE``, ``$XDG_CACHE_HOME`` or ``~/.cache``.

    None for a user without a home.
    """
    root = os.environ.get("FASTGLOW_CACHE") or os.environ.get("XDG_CACHE_HOME")
    folder = root or os.path.expanduser("~/.cache")
    return None if folder.startswith("~") else Path(folder) / "fastglow"


class DiskCache:
    """One file of :func:`cache_folder`, behind its own checksum."""

    def __init__(self, name: str) -> None:
        """Keep it under this file name, which must say everything that the code depends on."""
        folder = cache_folder()
        self.path = folder / name if folder else None

    def load(self) -> bytes | None:
        """The code, or None if there is none or it is damaged."""
        try:
            data = self.path.read_bytes() if self.path else b""
        except OSError:
            return None
        digest, code = data[:32], data[32:]
        return code if hashlib.sha256(code).digest() == digest else None

    def save(self, code: bytes) -> None:
        """Keep the code, if the folder can be written."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as (part,):
                part.write_bytes(hashlib.sha256(code).digest() + code)
        except OSError:
            pass  # a cache that cannot be written costs compiling again, nothing else
