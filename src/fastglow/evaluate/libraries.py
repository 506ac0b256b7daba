"""The optional packages that the metrics come from, imported when they are needed."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from types import ModuleType
from typing import Any

from fastglow.errors import InputError

METRICS = ("librosa", "numpy", "pesq", "pystoi", "scipy", "soxr")
MOS = ("distillmos", "torch")


def optional(name: str, source: str = "'fastglow[evaluate]'") -> Any:
    """An optional module.

    Args:
        name: As in an import statement.
        source: What to tell pip to install, should it be missing.

    Raises:
        InputError: It is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: a shared object that does not load
        package = name.partition(".")[0]
        raise InputError(f"evaluate needs {package} ({error}): pip install {source}") from None


@contextmanager
def importable(name: str) -> Iterator[None]:
    """Lets others import a module that is not needed, with nothing in it if it is not there."""
    try:
        importlib.import_module(name)
    except (ImportError, OSError):
        sys.modules[name] = ModuleType(name)
    try:
        yield
    finally:
        if not hasattr(sys.modules[name], "__file__"):
            del sys.modules[name]


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The installed version of each package; "unknown" for one that no installer put there."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


@contextmanager
def padding_quietly() -> Iterator[None]:
    """Librosa warns where a clip is shorter than a frame; padding with zeros is what is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_fft=", category=UserWarning)
        yield
