"""What callers of the CUDA engine get wrong, and what their machines may lack."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from fastglow.errors import EngineError, InputError
from fastglow.noise import SeededNoise


def check_shapes(
    mel: Tensor, noise: Tensor | SeededNoise, lengths: Sequence[int], sizes: tuple[int, int]
) -> None:
    """Raise where a kernel would read past the end of what it was given.

    Args:
        mel: [B, n_mel, frames] float32.
        noise: [B, samples] float32, or seeds.
        lengths: Frames of each row.
        sizes: (n_mel, samples).

    Raises:
        InputError: They do not fit each other.
    """
    rows, (bands, samples) = len(lengths), sizes
    found: tuple[int, ...] = tuple(mel.shape[:2])
    expected: tuple[int, ...] = (rows, bands)
    if isinstance(noise, SeededNoise):
        found, expected = (*found, len(noise.seeds)), (*expected, rows)
    else:
        found, expected = (*found, *noise.shape), (*expected, rows, samples)
    if not rows or found != expected or max(lengths) > mel.shape[2]:
        kind = "seeds" if isinstance(noise, SeededNoise) else "noise"
        raise InputError(
            f"mel {list(mel.shape)}, {kind} {list(found[2:])}, lengths up to "
            f"{max(lengths, default=0)}: expected a mel [{rows}, {bands}, frames] and {kind} "
            f"{list(expected[2:])}"
        )
    if {mel.dtype, getattr(noise, "dtype", torch.float32)} != {torch.float32}:
        raise InputError("the mel and the noise must be float32")


def indexed(name: str) -> torch.device:
    """The device with its number, which PyTorch would look for again and again at every call."""
    device = torch.device(name)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


@contextmanager
def explained() -> Iterator[None]:
    """Name what Triton lacks: it builds its launchers with the system's C compiler.

    Raises:
        EngineError: There is no C compiler.
    """
    try:
        yield
    except (RuntimeError, subprocess.CalledProcessError) as error:
        built = isinstance(error, subprocess.CalledProcessError)
        if not built and "C compiler" not in str(error):
            raise
        raise EngineError(
            f"Triton cannot build its launchers ({error}); install a C compiler and Python's "
            "headers (on Debian and Ubuntu: apt install gcc python3-dev), or use --device cpu"
        ) from None
