"""Mel files: .npy, .npz, .pt and .safetensors, read without running or trusting anything."""

from __future__ import annotations

import io
import math
import os
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastglow.atomic import write_whole
from fastglow.audio.mel import Float32
from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError

SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".safetensors")
MAX_UNPACKED = 1 << 30  # bytes from a .npz: 10 hours of mel; a zip can promise 1000 times its size
SAVE = "save it with np.save(path, mel.astype(np.float32))"
# Python counts how deep a text nests for all threads together, numpy reads headers as Python, and a
# collection of garbage may let another thread in: 1 % of headers were "damaged", in a test of that.
_PARSING = threading.Lock()


def read_mel(path: str | os.PathLike[str], config: WaveGlowConfig) -> Float32:
    """A mel that a model can read.

    Args:
        path: .npy; .npz with one array or a key ``mel``; .pt or .safetensors with one tensor or
            a key ``mel``. Of float16, float32 or float64 [n_mel, frames] or [1, n_mel, frames].
        config: The model's.

    Returns:
        float32 [n_mel, frames], as stored: see ``convert_mel`` for other scales than ln.

    Raises:
        InputError: The file is missing, damaged or holds something else.
        CheckpointError: A .pt or .safetensors file is damaged or unsafe.
    """
    return check_mel(read_raw_mel(path), config, str(path))


def read_raw_mel(path: str | os.PathLike[str]) -> Float32:
    """The array in a mel file as float32, of whatever shape and value: what doctors look at.

    Raises:
        InputError: The file is missing, damaged or holds no single floating-point array.
        CheckpointError: A .pt or .safetensors file is damaged or unsafe.
    """
    source = find_mel(path)
    suffix = source.suffix.lower()
    try:
        size = source.stat().st_size
        if suffix == ".npy":
            with source.open("rb") as file:
                array = _read_npy(file, size, str(source))
        elif suffix == ".npz":
            with source.open("rb") as file:
                array = _read_npz(file, str(source))
        else:
            from fastglow.checkpoint import read_tensor_file

            array = read_tensor_file(source)
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror or error})") from None
    _check_dtype(array.dtype, str(source))
    with np.errstate(over="ignore"):  # a float64 past float32 becomes inf, which is reported
        return array.astype(np.float32)


def find_mel(path: str | os.PathLike[str]) -> Path:
    """The path of a file whose suffix is a mel's.

    Raises:
        InputError: It has another suffix or there is no such file.
    """
    source = Path(path)
    suffix = source.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"{source}: cannot read a mel from {suffix or 'a file without suffix'}; "
            f"expected {', '.join(SUFFIXES)}"
        )
    if not source.is_file():
        kind = "is a folder" if source.is_dir() else "no such file"
        raise InputError(f"{source}: {kind}; expected a mel")
    return source


def check_mel(mel: Float32, config: WaveGlowConfig, source: str = "the mel") -> Float32:
    """The mel as [n_mel, frames], if a model can read it.

    Args:
        mel: [n_mel, frames] or [1, n_mel, frames].
        config: The model's.
        source: Who to name in messages.

    Raises:
        InputError: Its shape does not fit or its values are not finite.
    """
    mel = mel.reshape(check_shape(mel.shape, config, source))
    check_finite([mel], source)
    return np.ascontiguousarray(mel)


def check_shape(
    shape: tuple[int, ...], config: WaveGlowConfig, source: str = "the mel"
) -> tuple[int, int]:
    """The shape [n_mel, frames] of a mel of [n_mel, frames] or [1, n_mel, frames].

    Raises:
        InputError: It does not fit the model.
    """
    bands, found = config.n_mel_channels, list(shape)
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) == 3 and bands in shape[1:]:
        raise InputError(f"{source}: a batch of shape {found}; save each mel in a file of its own")
    if len(shape) != 2:
        raise InputError(f"{source}: an array of shape {found}; expected [{bands}, frames]")
    if 0 in shape:
        raise InputError(f"{source}: the mel is empty ({found}); expected [{bands}, frames]")
    if shape[0] != bands and shape[1] == bands:
        raise InputError(f"{source}: the mel is transposed ({found}); save mel.T")
    if shape[0] != bands:
        raise InputError(
            f"{source}: {shape[0]} mel bands in {found}; the model reads {bands}: "
            "make the mels with its settings (`fastglow mel`)"
        )
    return shape[0], shape[1]


def check_finite(parts: Iterable[Float32], source: str = "the mel") -> None:
    """Raises unless all of a mel, in parts [n_mel, frames] of any width, is finite.

    Raises:
        InputError: A value is NaN or infinite.
    """
    frames = size = bad = first = 0
    for part in parts:
        finite = np.isfinite(part)
        if not finite.all():
            first = first if bad else frames + int(np.argmin(finite.all(axis=0)))
            bad += int(finite.size - finite.sum())
        frames, size = frames + part.shape[1], size + part.size
    if bad:
        raise InputError(
            f"{source}: {bad} of {size} values are NaN or infinite, first in frame {first}; "
            "make the mel again"
        )


def write_mel(path: str | os.PathLike[str], mel: Any) -> None:
    """Writes a mel as float32 .npy, whole or not at all.

    Args:
        path: Ends in .npy; its folder must exist.
        mel: [n_mel, frames].

    Raises:
        InputError: The path is no .npy or cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".npy":
        raise InputError(f"{target}: mels are written as .npy")
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(mel, dtype=np.float32), allow_pickle=False)
    write_whole(target, [buffer.getvalue()])


def _check_dtype(dtype: np.dtype[Any], source: str) -> None:
    if dtype.kind == "f" and dtype.itemsize in (2, 4, 8):
        return
    if dtype.hasobject:
        raise InputError(f"{source}: holds pickled Python objects, which are not read; {SAVE}")
    if dtype.kind in "iub":
        raise InputError(
            f"{source}: holds {dtype} numbers; expected float16, float32 or float64: "
            "undo the quantisation first"
        )
    raise InputError(
        f"{source}: holds {str(dtype)[:60]!r}; expected float16, float32 or float64: {SAVE}"
    )


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """How an array lies in a .npy file.

    Attributes:
        shape: Of the array.
        order: "C" or "F".
        dtype: float16, float32 or float64.
        offset: Where its first byte is.
    """

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]
    offset: int

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_npy_header(file: IO[bytes], size: int, source: str) -> NpyHeader:
    """The header of a .npy stream of ``size`` bytes, which is left where the array begins.

    Raises:
        InputError: The stream is damaged or holds no floating-point array.
    """
    readers: dict[tuple[int, int], Callable[..., Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        with _PARSING, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's remarks on headers of Python 2
            shape, fortran, dtype = readers[np.lib.format.read_magic(file)](file)
    except (
        Exception
    ) as error:  # numpy's parser lets through whatever eval, tokenize and dtype raise
        raise InputError(f"{source}: no valid .npy header ({_line(error)}); {SAVE}") from None
    _check_dtype(dtype, source)
    if len(shape) > 8 or not all(0 <= extent < 2**48 for extent in shape):
        raise InputError(f"{source}: the .npy header promises an impossible shape; {SAVE}")
    header = NpyHeader(shape, "F" if fortran else "C", dtype, file.tell())
    there = size - header.offset
    if header.size != there:
        raise InputError(
            f"{source}: the .npy header promises {list(shape)} of {dtype}, {header.size} bytes, "
            f"but {there} follow; the file is damaged: write it again"
        )
    return header


def _read_npy(file: IO[bytes], size: int, source: str) -> NDArray[Any]:
    """The array in a .npy stream of ``size`` bytes; allocates only what is really there."""
    header = read_npy_header(file, size, source)
    data = file.read(header.size)
    if len(data) != header.size:
        raise InputError(f"{source}: ends after {len(data)} of {header.size} bytes; write it again")
    return np.frombuffer(data, header.dtype).reshape(header.shape, order=header.order)


def _read_npz(file: IO[bytes], source: str) -> NDArray[Any]:
    """The array named ``mel``, or the only one."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
            key = "mel" if "mel" in members else next(iter(members), "")
            if key not in members or (key != "mel" and len(members) > 1):
                keys = ", ".join(_line(name) for name in list(members)[:8])
                raise InputError(
                    f"{source}: holds {len(members)} arrays ({keys or 'none'}); "
                    "save the mel alone or under the key 'mel'"
                )
            if members[key].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InputError(f"{source}: {_line(key)} is compressed in a way numpy never uses")
            if members[key].file_size > MAX_UNPACKED:
                raise InputError(
                    f"{source}: {_line(key)} unpacks to {members[key].file_size} bytes; at most "
                    f"{MAX_UNPACKED} are read: save it as .npy"
                )
            with archive.open(members[key]) as member:
                return _read_npy(member, members[key].file_size, f"{source}[{_line(key)}]")
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, OSError) as error:
        raise InputError(f"{source}: damaged .npz ({_line(error)}); write it again") from None


def _line(text: object) -> str:
    """What a file says, fit for one line of a message."""
    return ascii(str(text))[1:-1][:120]
