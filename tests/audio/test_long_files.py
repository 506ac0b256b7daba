"""Mels that stay in their file: the values and the messages of those that are read whole."""

import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastglow.audio import read_mel
from fastglow.audio import stored as stored_module
from fastglow.audio.stored import StoredMel, open_mel
from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError

CONFIG = WaveGlowConfig()
MEL = np.random.default_rng(0).normal(-5, 2, (80, 101)).astype(np.float32)
LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "transposed in memory": lambda mel: np.ascontiguousarray(mel.T).T,
    "C, batch of one": lambda mel: np.ascontiguousarray(mel)[None],
    "Fortran, batch of one": lambda mel: np.asfortranarray(mel[None]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mels")


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8"])
@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(width=st.integers(1, 120), first=st.integers(0, 100), count=st.integers(1, 120))
def test_parts_are_the_mel(folder, dtype, layout, width, first, count):
    array = MEL.astype(dtype)
    np.save(folder / "a.npy", LAYOUTS[layout](array))
    mel = open_mel(folder / "a.npy", CONFIG, above=0)
    assert isinstance(mel, StoredMel)
    assert mel.shape == (80, 101)
    expected = array.astype(np.float32)
    parts = list(mel.parts(width))
    assert all(part.dtype == np.float32 and part.flags.c_contiguous for part in parts)
    assert [part.shape[1] for part in parts[:-1]] == [width] * (len(parts) - 1)
    assert np.array_equal(np.concatenate(parts, axis=1), expected)
    assert np.array_equal(mel.read(first, first + count), expected[:, first : first + count])


def test_only_a_long_npy_stays_in_its_file(tmp_path):
    np.save(tmp_path / "a.npy", MEL)
    np.savez(tmp_path / "a.npz", mel=MEL)
    assert isinstance(open_mel(tmp_path / "a.npy", CONFIG, above=100), StoredMel)
    for name, above in (("a.npy", 101), ("a.npz", 0)):
        mel = open_mel(tmp_path / name, CONFIG, above=above)
        assert np.array_equal(mel, MEL)


def changed(*values):
    mel = MEL.copy()
    for frame, value in values:
        mel[3, frame] = value
    return mel


WRONG = {
    "transposed": MEL.T,
    "bands": MEL[:40],
    "empty": MEL[:, :0],
    "vector": MEL[0],
    "batch": np.stack([MEL, MEL]),
    "4-d": MEL[None, None],
    "int16": MEL.astype(np.int16),
    "object": np.array([[None]]),
    "past float32": MEL.astype(np.float64) * 1e300,
    "nan": changed((7, np.nan)),
    "infinite, at the very end": changed((100, np.inf)),
    "in several parts": changed((15, np.nan), (16, np.inf), (99, -np.inf)),
}


@pytest.mark.parametrize("array", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_is_wrong_is_said_as_of_any_mel(tmp_path, monkeypatch, array, order):
    monkeypatch.setattr(stored_module, "WIDTH", 16)
    np.save(tmp_path / "a.npy", np.asarray(array, order=order), allow_pickle=True)
    with pytest.raises(InputError) as expected:
        read_mel(tmp_path / "a.npy", CONFIG)
    with pytest.raises(InputError) as found:
        open_mel(tmp_path / "a.npy", CONFIG, above=-1)
    assert str(found.value) == str(expected.value)


def test_several_bad_values_are_counted_over_all_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_module, "WIDTH", 16)
    np.save(tmp_path / "a.npy", WRONG["in several parts"])
    with pytest.raises(InputError, match="3 of 8080 values are NaN or infinite, first in frame 15"):
        open_mel(tmp_path / "a.npy", CONFIG, above=0)


@pytest.mark.parametrize("name", ["a.txt", "none.npy", "folder.npy", "cut.npy", "text.npy"])
def test_bad_files_are_named_as_by_read_mel(tmp_path, name):
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "text.npy").write_text("80 3")
    np.save(tmp_path / "cut.npy", MEL)
    os.truncate(tmp_path / "cut.npy", 1000)
    with pytest.raises(InputError) as expected:
        read_mel(tmp_path / name, CONFIG)
    with pytest.raises(InputError) as found:
        open_mel(tmp_path / name, CONFIG, above=0)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_does_not_grow_with_the_length(tmp_path, monkeypatch, dtype, order):
    monkeypatch.setattr(stored_module, "WIDTH", 100)
    np.save(tmp_path / "a.npy", np.asarray(np.tile(MEL, (1, 200)), dtype, order))
    part = 80 * 100 * 8  # bytes of the widest type
    tracemalloc.start()
    try:
        mel = open_mel(tmp_path / "a.npy", CONFIG, above=0)
        assert sum(part.shape[1] for part in mel.parts(100)) == 20_200
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * part  # of 50 to 200 parts


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path):
    np.save(path, MEL + 1)


def replace(path):
    np.save(path.with_name("b.npy"), MEL + 1)
    os.replace(path.with_name("b.npy"), path)


@pytest.mark.parametrize("change", [truncate, overwrite, replace])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_that_changes_meanwhile_is_told(tmp_path, change, order):
    path = tmp_path / "a.npy"
    np.save(path, np.asarray(MEL, order=order))
    os.utime(path, (0, 0))  # clocks tick slowly
    parts = open_mel(path, CONFIG, above=0).parts(60)
    assert np.array_equal(next(parts), MEL[:, :60])
    change(path)
    with pytest.raises(InputError, match=r"a\.npy: the file was changed while it was read"):
        next(parts)


def test_a_file_that_goes_meanwhile_is_told(tmp_path):
    np.save(tmp_path / "a.npy", MEL)
    mel = open_mel(tmp_path / "a.npy", CONFIG, above=0)
    (tmp_path / "a.npy").unlink()
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        mel.read(0, 1)
