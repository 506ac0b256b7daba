"""Mel files: every format and dtype that is read, and every way to be wrong."""

from __future__ import annotations

import gc
import io
import os
import struct
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from fastglow.audio import read_mel, read_raw_mel, write_mel
from fastglow.config import WaveGlowConfig
from fastglow.errors import FastglowError, InputError

CONFIG = WaveGlowConfig()
MEL = np.random.default_rng(0).normal(-5, 2, (80, 23)).astype(np.float32)


def save(path: Path, array: np.ndarray) -> None:
    """The array in the format of the suffix, the way its users write it."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, mel=array)
    elif path.suffix == ".pt":
        torch.save(torch.from_numpy(np.ascontiguousarray(array)), path)
    else:
        save_file({"mel": np.ascontiguousarray(array)}, path)


FORMATS = [".npy", ".npz", ".pt", ".safetensors"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("batch", [False, True])
def test_round_trip(tmp_path, suffix, dtype, batch):
    path = tmp_path / f"a{suffix}"
    array = MEL.astype(dtype)
    save(path, array[None] if batch else array)
    mel = read_mel(path, CONFIG)
    assert (mel.dtype, mel.shape) == (np.float32, (80, 23))
    assert mel.flags.c_contiguous
    assert np.array_equal(mel, array.astype(np.float32))


@pytest.mark.parametrize("array", [np.asfortranarray(MEL), MEL.astype(">f4"), MEL[:, ::2]])
def test_any_memory_layout(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(read_mel(tmp_path / "a.npy", CONFIG), array)


def test_npz_takes_the_key_mel_or_the_only_one(tmp_path):
    np.savez(tmp_path / "a.npz", other=MEL[:3], mel=MEL)
    assert np.array_equal(read_mel(tmp_path / "a.npz", CONFIG), MEL)
    np.savez(tmp_path / "b.npz", MEL)
    assert np.array_equal(read_mel(tmp_path / "b.npz", CONFIG), MEL)
    np.savez(tmp_path / "c.npz", a=MEL, b=MEL)
    with pytest.raises(InputError, match=r"holds 2 arrays \(a, b\).*under the key 'mel'"):
        read_mel(tmp_path / "c.npz", CONFIG)
    np.savez(tmp_path / "d.npz")
    with pytest.raises(InputError, match=r"holds 0 arrays \(none\)"):
        read_mel(tmp_path / "d.npz", CONFIG)


def test_write_mel(tmp_path):
    write_mel(tmp_path / "a.npy", MEL.astype(np.float64))
    assert np.load(tmp_path / "a.npy").dtype == np.float32
    assert np.array_equal(read_mel(tmp_path / "a.npy", CONFIG), MEL)
    with pytest.raises(InputError, match=r"mels are written as \.npy"):
        write_mel(tmp_path / "a.npz", MEL)
    with pytest.raises(InputError, match="cannot be written"):
        write_mel(tmp_path / "none" / "a.npy", MEL)
    assert os.listdir(tmp_path) == ["a.npy"]


def bad(value: float) -> np.ndarray:
    mel = MEL.copy()
    mel[3, 7] = value
    return mel


WRONG = {
    "transposed": (MEL.T, r"the mel is transposed \(\[23, 80\]\); save mel.T"),
    "bands": (MEL[:40], r"40 mel bands in \[40, 23\]; the model reads 80"),
    "empty": (MEL[:, :0], "the mel is empty"),
    "vector": (MEL[0], r"an array of shape \[23\]; expected \[80, frames\]"),
    "batch": (np.stack([MEL, MEL]), "a batch of shape"),
    "4-d": (MEL[None, None], r"shape \[1, 1, 80, 23\]"),
    "nan": (bad(np.nan), "1 of 1840 values are NaN or infinite, first in frame 7"),
    "inf": (bad(-np.inf), "NaN or infinite"),
    "int16": (MEL.astype(np.int16), "holds int16 numbers"),
    "uint8": (MEL.astype(np.uint8), "holds uint8 numbers"),
    "bool": (MEL > 0, "holds bool numbers"),
    "complex": (MEL.astype(np.complex64), "complex64|C64"),
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("array", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_mel_is_one_clear_line(tmp_path, suffix, array, says):
    path = tmp_path / f"a{suffix}"
    save(path, array)
    with pytest.raises(FastglowError, match=says) as error:
        read_mel(path, CONFIG)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "array",
    [
        np.array([[None, {}]], dtype=object),
        np.zeros((80, 3), dtype=[("a", "f4"), ("b", "f4")]),
        np.zeros((80, 3), dtype="U5"),
        np.zeros((80, 3), dtype="M8[s]"),
        np.zeros((80, 3), dtype="V4"),
        np.zeros((80, 3), dtype=np.longdouble),
    ],
    ids=lambda a: a.dtype.kind,
)
@pytest.mark.parametrize("save_as", [np.save, np.savez])
def test_a_strange_dtype_is_refused(tmp_path, array, save_as):
    path = tmp_path / ("a.npy" if save_as is np.save else "a.npz")
    save_as(path, array)
    with pytest.raises(InputError, match=r"not read|expected float16, float32 or float64"):
        read_mel(path, CONFIG)


def npy(shape: str, data: bytes = bytes(4 * 80 * 3), descr: str = "'<f4'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    header += b" " * (-(11 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


HOSTILE = {
    "huge": (npy("(80, 10000000000)"), r"promises \[80, 10000000000\].*but 960 follow"),
    "overflowing": (npy("(4294967296, 4294967296, 4)"), "bytes, but 960 follow"),
    "negative": (npy("(-80, -3)"), "an impossible shape"),
    "many digits": (npy(f"({'9' * 4000}, {'9' * 4000})"), "an impossible shape"),
    "many axes": (npy(f"({'1, ' * 60})"), "an impossible shape"),
    "long": (npy("(80, 3)", bytes(961)), "but 961 follow"),
    "short": (npy("(80, 3)", bytes(959)), "but 959 follow"),
    "no data": (npy("(80, 3)", b""), "but 0 follow"),
    "no shape": (npy("None"), "no valid .npy header"),
    "call": (npy("(80, 3)", descr="__import__('os').system('true')"), "no valid .npy header"),
    "nested": (npy("(" * 3000 + ")" * 3000), "no valid .npy header"),
    "not npy": (b"80 3\n1.0 2.0\n", "no valid .npy header"),
    "nothing": (b"", "no valid .npy header"),
    "magic alone": (b"\x93NUMPY", "no valid .npy header"),
    "version 9": (b"\x93NUMPY\x09\x00" + npy("(80, 3)")[8:], "no valid .npy header"),
}


@pytest.mark.parametrize(("data", "says"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_hostile_file_allocates_nothing(tmp_path, data, says, zipped):
    path = tmp_path / ("a.npz" if zipped else "a.npy")
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("mel.npy", data)
    else:
        path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(InputError, match=says) as error:
        read_mel(path, CONFIG)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
    assert "\n" not in str(error.value)


def test_threads_read_while_garbage_is_collected(tmp_path):
    """Callbacks of the collector let other threads in, between two parts of a header."""
    np.save(tmp_path / "a.npy", MEL)
    threshold = gc.get_threshold()
    gc.callbacks.append(callback := lambda phase, info: time.sleep(0))
    gc.set_threshold(20)
    try:
        with ThreadPoolExecutor(4) as pool:
            mels = list(pool.map(lambda _: read_mel(tmp_path / "a.npy", CONFIG), range(2000)))
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(callback)
    assert all(np.array_equal(mel, MEL) for mel in mels)


def test_a_zip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fastglow.audio.mels.MAX_UNPACKED", 10_000)
    np.savez_compressed(tmp_path / "a.npz", mel=np.zeros((80, 1000), np.float32))
    with pytest.raises(InputError, match="unpacks to 320128 bytes; at most 10000 are read"):
        read_mel(tmp_path / "a.npz", CONFIG)


def test_no_zip(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(InputError, match=r"damaged \.npz"):
        read_mel(tmp_path / "a.npz", CONFIG)


def test_a_float64_past_float32_is_reported(tmp_path):
    np.save(tmp_path / "a.npy", np.full((80, 3), 1e300))
    with pytest.raises(InputError, match="NaN or infinite"):
        read_mel(tmp_path / "a.npy", CONFIG)


def test_paths(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_mel(tmp_path / "a.npy", CONFIG)
    with pytest.raises(InputError, match=r"cannot read a mel from \.txt"):
        read_mel(tmp_path / "a.txt", CONFIG)
    (tmp_path / "b.npy").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        read_mel(tmp_path / "b.npy", CONFIG)


def test_a_raw_mel_may_have_any_shape_and_value(tmp_path):
    np.save(tmp_path / "a.npy", bad(np.nan).T)
    raw = read_raw_mel(tmp_path / "a.npy")
    assert raw.shape == (23, 80)
    assert np.isnan(raw[7, 3])


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    (tmp_path / "a.npy").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="pickled Python objects, which are not read"):
        read_mel(tmp_path / "a.npy", CONFIG)
    assert not (tmp_path / "sprung").exists()
