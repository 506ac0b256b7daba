"""The pickle machine against the standard library's, and the zip reader's corners."""

from __future__ import annotations

import argparse
import io
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_files import saved

from fastglow.checkpoint import read_tensor_file
from fastglow.checkpoint.inert import Global, Record
from fastglow.checkpoint.unpickle import unpickle

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**100), 2**100)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
KEYS = SCALARS | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(KEYS, inner)
        | st.dictionaries(st.text(), inner).map(OrderedDict)
        | st.sets(SCALARS)
        | st.frozensets(SCALARS)
    ),
    max_leaves=30,
)


@given(VALUES, st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_plain_data_is_what_the_standard_library_reads(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    found, end = unpickle(b"##" + data + b"rest", "x.pt", position=2)
    assert end == 2 + len(data)
    assert found == pickle.loads(data)


@pytest.mark.parametrize("protocol", range(6))
def test_instances_become_records(protocol: int) -> None:
    namespace = argparse.Namespace(flows=12, name="é\n\\", nested={"a": [1.5, None, True]})
    found, _ = unpickle(pickle.dumps(namespace, protocol), "x.pt")
    assert isinstance(found, Record)
    assert found.cls == Global("argparse", "Namespace")
    assert found.state == vars(namespace)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_sharing_and_cycles_are_kept(protocol: int) -> None:
    shared: list[Any] = [1]
    cycle: dict[str, Any] = {"a": shared, "b": shared}
    cycle["self"] = cycle
    found, _ = unpickle(pickle.dumps(cycle, protocol), "x.pt")
    assert found["a"] is found["b"]
    assert found["self"] is found


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2", "<i8", "|u1", "|b1"])
def test_numpy_values_are_read(tmp_path: Path, protocol: int, dtype: str) -> None:
    array = (np.arange(24).reshape(2, 3, 4) % 7).astype(dtype)
    path = tmp_path / "mel.pkl"
    for value in (array, array.transpose(2, 0, 1), array[:, :, :0]):
        path.write_bytes(pickle.dumps({"mel": value, "mean": array.flat[5]}, protocol))
        np.testing.assert_array_equal(read_tensor_file(path), value)
    scalar, _ = unpickle(pickle.dumps(array.flat[5], protocol), "x.pt")
    assert scalar == array.flat[5]


def test_numbers_with_the_high_byte_first_are_read(tmp_path: Path) -> None:
    numbers = (np.arange(4) + 0.5).astype(">f4")
    pickled = hostile.tensor(b"K\x02K\x02\x86", b"K\x02K\x01\x86") + b"."
    entries = {"m/data.pkl": pickled, "m/byteorder": b"big", "m/data/0": numbers.tobytes()}
    path = tmp_path / "x.pt"
    path.write_bytes(hostile.archive(entries))
    found = read_tensor_file(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, numbers.reshape(2, 2))


def test_archives_without_checksums_are_read(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        data = saved(torch.arange(3.0))
    finally:
        torch.serialization.set_crc32_options(before)
    path = tmp_path / "x.pt"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_tensor_file(path), np.arange(3.0))


def test_sizes_in_the_zip64_field_are_read(tmp_path: Path) -> None:
    """A directory as it is written for storages over 4 GiB."""
    pickled = hostile.tensor(b"K\x04\x85", b"K\x01\x85") + b"."
    numbers = np.arange(4, dtype="<f4")
    out, directory = io.BytesIO(), b""
    for name, raw in ((b"m/data.pkl", pickled), (b"m/data/0", numbers.tobytes())):
        start = out.tell()
        local = struct.pack("<4s5HIIIHH", b"PK\3\4", 45, 0, 0, 0, 0, 0, 0, 0, len(name), 0)
        out.write(local + name + raw)
        extra = struct.pack("<HHI", 0x5555, 4, 0)
        extra += struct.pack("<HHQQQ", 1, 24, len(raw), len(raw), start)
        crc = zlib.crc32(raw)
        fields = (45, 45, 0, 0, 0, 0, crc, *[0xFFFFFFFF] * 2, len(name), len(extra), 0, 0, 0, 0)
        directory += struct.pack("<4s6HIIIHHHHHII", b"PK\1\2", *fields, 0xFFFFFFFF) + name + extra
    position = out.tell()
    end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, len(directory), position)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, position + len(directory), 1)
    tail = struct.pack("<4s4HIIH", b"PK\5\6", *[0xFFFF] * 4, *[0xFFFFFFFF] * 2, 0)
    data = out.getvalue() + directory + end + locator + tail
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        assert file.read("m/data.pkl") == pickled
    path = tmp_path / "x.pt"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_tensor_file(path), numbers)
