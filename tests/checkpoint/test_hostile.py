"""Nothing in a checkpoint is imported, called or executed, and every attack is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hostile
import numpy as np
import pytest

from fastglow.checkpoint import load_weights, read_tensor_file
from fastglow.errors import CheckpointError

CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "pickle": lambda pickled: pickled,
    "zip": hostile.as_zip,
    "stream": hostile.as_stream,
}
EXPECTED = {name: case[1] for name, case in {**hostile.CALLS, **hostile.ABUSES}.items()}
EXPECTED |= dict.fromkeys(hostile.INERT, "no WaveGlow")
PICKLES = {name: case[0] for name, case in {**hostile.CALLS, **hostile.ABUSES}.items()}
PICKLES |= hostile.INERT
# What reading a file takes; anything else would be the file's doing.
ALLOWED = {"open", "mmap.__new__", "builtins.id"}


def audit(arguments: list[str], folder: Path) -> dict[str, list[dict[str, list[str]]]]:
    program = Path(__file__).with_name("audited.py")
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("container", CONTAINERS)
def test_nothing_is_executed_and_the_message_names_the_attack(
    tmp_path: Path, container: str
) -> None:
    files = {}
    for index, (name, pickled) in enumerate(PICKLES.items()):
        files[str(tmp_path / f"{index}.pt")] = name
        (tmp_path / f"{index}.pt").write_bytes(CONTAINERS[container](pickled))
    report = audit(list(files), tmp_path)
    for file, name in files.items():
        weights, tensor = report[file]
        kind, message = weights["result"]
        assert kind == "CheckpointError", (name, kind, message)
        assert Path(file).name in message, name
        assert "\n" not in message, name
        assert "\x1b" not in message, name
        assert EXPECTED[name] in message, (name, message)
        assert tensor["result"][0] == "CheckpointError", (name, tensor)
        for event, *details in weights["events"] + tensor["events"]:
            assert event in ALLOWED, (name, event, details)
            assert event != "open" or details[0] == file, (name, details)
    assert not (tmp_path / hostile.MARKER).exists()


@pytest.mark.parametrize("container", ["zip", "stream"])
def test_a_storage_class_must_be_known(tmp_path: Path, container: str) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(CONTAINERS[container](hostile.ABUSES["persistent id of a function"][0]))
    with pytest.raises(CheckpointError, match=r"x\.pt.*storage class posix\.system is unknown"):
        load_weights(path)


def test_the_audit_hook_sees_an_execution(tmp_path: Path) -> None:
    """The control: the standard library does run the same file, and the hook sees it."""
    file = tmp_path / "control.pkl"
    file.write_bytes(hostile.CALLS["os.system"][0])
    ((record,),) = audit(["--control", str(file)], tmp_path).values()
    assert "os.system" in {event for event, *_ in record["events"]}
    assert (tmp_path / hostile.MARKER).exists()


GEOMETRIES = {
    "huge shape": (b"J\xff\xff\xff\x7f\x85", b"K\x01\x85", b"K\x00"),
    "huge shape of stride 0": (b"J\xff\xff\xff\x7f\x85", b"K\x00\x85", b"K\x00"),
    "shape over 64 bits": (b"\x8a\x09" + b"\xff" * 8 + b"\x00\x85", b"K\x00\x85", b"K\x00"),
    "negative shape": (b"J\xff\xff\xff\xff\x85", b"K\x01\x85", b"K\x00"),
    "negative stride": (b"K\x02\x85", b"J\xff\xff\xff\xff\x85", b"K\x03"),
    "negative offset": (b"K\x02\x85", b"K\x01\x85", b"J\xff\xff\xff\xff"),
    "offset beyond": (b"K\x02\x85", b"K\x01\x85", b"K\x03"),
    "stride beyond": (b"K\x02\x85", b"K\x04\x85", b"K\x00"),
    "too few strides": (b"K\x02K\x02\x86", b"K\x01\x85", b"K\x00"),
    "fractional shape": (b"G" + b"\x3f\xf0" + b"\x00" * 6 + b"\x85", b"K\x01\x85", b"K\x00"),
    "shape of truth values": (b"\x88\x85", b"K\x01\x85", b"K\x00"),
    "axes without end": (b"(" + b"K\x01" * 99 + b"t", b"(" + b"K\x01" * 99 + b"t", b"K\x00"),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("container", ["zip", "stream"])
def test_a_tensor_must_fit_its_storage(tmp_path: Path, name: str, container: str) -> None:
    wrap = hostile.as_zip if container == "zip" else hostile.as_stream
    path = tmp_path / "x.pt"
    path.write_bytes(wrap(hostile.tensor(*GEOMETRIES[name]) + b".", {"0": bytes(16)}))
    with pytest.raises(CheckpointError, match=r"x\.pt.*tensor"):
        read_tensor_file(path)


def test_a_sound_tensor_is_read(tmp_path: Path) -> None:
    """The control for the geometries above: a transposed view in both containers."""
    numbers = np.arange(4, dtype="<f4")
    pickled = hostile.tensor(b"K\x02K\x02\x86", b"K\x01K\x02\x86") + b"."
    for wrap in (hostile.as_zip, hostile.as_stream):
        path = tmp_path / "x.pt"
        path.write_bytes(wrap(pickled, {"0": numbers.tobytes()}))
        np.testing.assert_array_equal(read_tensor_file(path), numbers.reshape(2, 2).T)


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) >= 1
    return data.replace(old, new)


def duplicate(data: bytes) -> bytes:
    return patched(data, b"m/data/1", b"m/data/0")


def overlapping(data: bytes) -> bytes:
    """The directory's second storage points at the first."""
    first = data.index(b"PK\x03\x04", data.index(b"m/version"))
    entry = data.rindex(b"PK\x01\x02")
    return data[: entry + 42] + first.to_bytes(4, "little") + data[entry + 46 :]


def oversized(data: bytes) -> bytes:
    entry = data.rindex(b"PK\x01\x02")
    return data[: entry + 20] + b"\xff\xff\xff\x7f" * 2 + data[entry + 28 :]


def encrypted(data: bytes) -> bytes:
    entry = data.rindex(b"PK\x01\x02")
    return data[: entry + 8] + b"\x01\x00" + data[entry + 10 :]


PAIR = {"0": bytes(16), "1": bytes(range(16))}
SOUND = hostile.as_zip(hostile.tensor(b"K\x04\x85", b"K\x01\x85") + b".", PAIR)
BOMB = {"m/data.pkl": b"N.", "m/data/0": bytes(200_000_000)}
ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "duplicate": (lambda: duplicate(SOUND), "occurs twice"),
    "overlapping": (lambda: overlapping(SOUND), "overlaps"),
    "oversized": (lambda: oversized(SOUND), "outside the file"),
    "encrypted": (lambda: encrypted(SOUND), "encrypted"),
    "bomb": (lambda: hostile.archive(BOMB, 8), "zip bomb"),
    "bzip2": (lambda: hostile.archive({"m/data.pkl": b"N."}, 12), "method 12"),
    "directory missing": (lambda: SOUND[:-40], "broke off"),
    "many entries": (
        lambda: hostile.archive({"m/data.pkl": b"N."} | {f"m/{n}": b"" for n in range(20_001)}),
        "20002 entries",
    ),
    "two pickles": (
        lambda: hostile.archive({"m/data.pkl": b"N.", "n/data.pkl": b"N."}),
        "not one that torch.save wrote",
    ),
    "no pickle": (lambda: hostile.archive({"word/document.xml": b""}), "no data.pkl"),
    "npz": (lambda: hostile.archive({"mel.npy": b""}), ".npz"),
    "torchscript": (
        lambda: hostile.archive({"m/data.pkl": b"N.", "m/constants.pkl": b"N."}),
        "TorchScript",
    ),
    "checksum": (lambda: patched(SOUND, b"cpuK\x04", b"cpuK\x03"), "checksum"),
    "storage too short": (
        lambda: hostile.as_zip(hostile.tensor(b"K\x04\x85", b"K\x01\x85") + b".", {"0": b"1234"}),
        "needs 16 bytes",
    ),
    "storage missing": (
        lambda: hostile.as_zip(hostile.tensor(b"K\x04\x85", b"K\x01\x85") + b"."),
        "holds none",
    ),
    "byte order": (
        lambda: hostile.archive({"m/data.pkl": b"N.", "m/byteorder": b"pdp"}),
        "byte order",
    ),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_built_to_mislead_are_refused(tmp_path: Path, name: str) -> None:
    make, expected = ARCHIVES[name]
    path = tmp_path / "x.pt"
    path.write_bytes(make())
    for load in (load_weights, read_tensor_file):
        with pytest.raises(CheckpointError, match=rf"x\.pt.*{expected}"):
            load(path)


def test_a_name_that_climbs_out_writes_nothing(tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    entries = {
        "m/data.pkl": b"N.",
        "../../evil": b"x",
        "/tmp/evil": b"x",
        "m/data/../../evil": b"x",
    }
    (inside / "x.pt").write_bytes(hostile.archive(entries))
    with pytest.raises(CheckpointError, match="no WaveGlow"):
        load_weights(inside / "x.pt")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "b", "x.pt"]


def test_compressed_entries_are_read(tmp_path: Path) -> None:
    """The control for the bomb: an archive that was zipped again."""
    pickled = hostile.tensor(b"M\xe8\x03\x85", b"K\x01\x85", numel=b"M\xe8\x03") + b"."
    numbers = np.ones(1000, dtype="<f4")
    path = tmp_path / "x.pt"
    path.write_bytes(hostile.archive({"m/data.pkl": pickled, "m/data/0": numbers.tobytes()}, 8))
    assert path.stat().st_size < numbers.nbytes / 2
    np.testing.assert_array_equal(read_tensor_file(path), numbers)


STREAMS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "storage cut off": (lambda data: data[:-1], "ends early"),
    "count disagrees": (
        lambda data: data[:-24] + (2**40).to_bytes(8, "little") + data[-16:],
        "disagrees",
    ),
    "unknown protocol": (lambda data: patched(data, b"M\xe9\x03.", b"M\xea\x03."), "protocol 1002"),
    "big-endian": (
        lambda data: patched(data, b"little_endianq\x02\x88", b"little_endianq\x02\x89"),
        "big-endian",
    ),
    "another key": (lambda data: data[:-30] + data[-30:].replace(b"0", b"1"), "list of storages"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_built_to_mislead_are_refused(tmp_path: Path, name: str) -> None:
    change, expected = STREAMS[name]
    sound = hostile.as_stream(
        hostile.tensor(b"K\x04\x85", b"K\x01\x85") + b".", {"0": b"\x01" * 16}
    )
    path = tmp_path / "x.pt"
    path.write_bytes(change(sound))
    with pytest.raises(CheckpointError, match=rf"x\.pt.*{expected}"):
        read_tensor_file(path)
    path.write_bytes(sound)
    assert read_tensor_file(path).shape == (4,)


FOREIGN = {
    "web page": (b"<!DOCTYPE html><html>Quota exceeded</html>", "web page"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "gzip": (b"\x1f\x8b" + bytes(30), "gzip"),
    "wav": (b"RIFF" + bytes(40), "sound file"),
    "npy": (b"\x93NUMPY" + bytes(40), ".npy"),
    "tar": (bytes(257) + b"ustar" + bytes(300), "tar archive"),
    "empty": (b"", "empty"),
    "text": (b"hello there", "damaged or foreign"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_named(tmp_path: Path, name: str) -> None:
    data, expected = FOREIGN[name]
    path = tmp_path / "x.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"x\.pt: .*{expected}"):
        load_weights(path)
