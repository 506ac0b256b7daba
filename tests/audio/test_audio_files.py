"""Audio files: round trips, the peak policy, whole or not at all, and bad inputs."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import clips
import numpy as np
import pytest
import soundfile
import soxr

from fastglow import atomic
from fastglow.audio import open_audio, read_audio, write_audio
from fastglow.errors import EngineError, InputError, OutputError

RATE = 22050


@pytest.mark.parametrize(
    ("suffix", "subtype", "bits"),
    [
        (".wav", "PCM_16", 16),
        (".wav", "PCM_24", 24),
        (".wav", "FLOAT", 0),
        (".flac", "PCM_16", 16),
        (".flac", "PCM_24", 24),
    ],
)
@pytest.mark.parametrize("samples", [1, 2, 1001, 30000])
def test_round_trip(tmp_path, suffix, subtype, bits, samples):
    audio = np.random.default_rng(samples).uniform(-0.999, 0.999, samples).astype(np.float32)
    path = tmp_path / f"a{suffix}"
    report = write_audio(path, audio, RATE, subtype=subtype)
    assert (report.path, report.samples, report.clipped) == (path, samples, 0)
    assert report.peak == np.abs(audio).max()
    info = soundfile.info(path)
    assert (info.subtype, info.samplerate, info.frames) == (subtype, RATE, samples)
    back, rate = read_audio(path)
    assert rate == RATE
    assert np.abs(back - audio).max() <= (2.0**-bits if bits else 0)
    again = tmp_path / f"b{suffix}"
    write_audio(again, back, rate, subtype=subtype)
    assert again.read_bytes() == path.read_bytes()  # nothing is lost the second time
    assert sorted(os.listdir(tmp_path)) == [f"a{suffix}", f"b{suffix}"]


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize(("subtype", "step"), [("PCM_16", 2.0**-15), ("PCM_24", 2.0**-23)])
def test_over_full_scale_is_clipped_and_counted(tmp_path, suffix, subtype, step):
    audio = np.array([0.5, 1.0, -1.0, 1.5, -7.0, 1e30, -0.25], np.float32)
    report = write_audio(tmp_path / f"a{suffix}", audio, RATE, subtype=subtype)
    assert report.clipped == 3
    assert report.peak == np.float32(1e30)
    top = 1 - step
    back = soundfile.read(tmp_path / f"a{suffix}")[0]
    assert back.tolist() == [0.5, top, -1, top, -1, top, -0.25]


def test_float_files_are_not_clipped(tmp_path):
    report = write_audio(tmp_path / "a.wav", np.array([1.5, -2.0]), RATE, subtype="FLOAT")
    assert (report.clipped, report.peak) == (0, 2.0)
    assert read_audio(tmp_path / "a.wav")[0].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_what_is_not_finite_is_not_written(tmp_path, value, name):
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(EngineError, match="1 of 3 samples are NaN or infinite"):
        write_audio(tmp_path / name, np.array([0, value, 0]), RATE)
    assert (tmp_path / name).read_bytes() == b"old"


class FullDisk:
    """A file that takes 100 bytes."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        if len(data) <= 100:
            return self.file.write(data)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def refused(*_):
    raise soundfile.LibsndfileError(2)  # "System error"


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"old")
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: FullDisk(real(self, *a, **k)))
    monkeypatch.setattr(soundfile.SoundFile, "write", refused)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OutputError, match=r"No space left on device.*nothing was changed"):
        write_audio(tmp_path / name, np.zeros(9999), RATE)
    monkeypatch.undo()
    assert (tmp_path / name).read_bytes() == b"old"
    assert os.listdir(tmp_path) == [name]


def test_an_interrupt_leaves_the_old_file(tmp_path):
    def parts():
        yield b"half"
        raise KeyboardInterrupt

    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        atomic.write_whole(tmp_path / "a", parts())
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_kill_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    code = f"""
import os, pathlib
from fastglow.atomic import write_whole
def parts():
    yield b"x" * 10**6
    os.kill(os.getpid(), 9)
write_whole(pathlib.Path({str(path)!r}), parts())
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "audio", "rate", "subtype", "says"),
    [
        ("a.mp3", np.zeros(9), RATE, "PCM_16", "cannot write .mp3; expected .wav or .flac"),
        ("a", np.zeros(9), RATE, "PCM_16", "no suffix"),
        ("a.wav", np.zeros(0), RATE, "PCM_16", "no samples"),
        ("a.flac", np.zeros(0), RATE, "PCM_16", "no samples"),
        ("a.wav", np.zeros((1, 9)), RATE, "PCM_16", r"float64 \[1, 9\]; expected floating"),
        ("a.wav", np.zeros(9, np.int16), RATE, "PCM_16", "int16"),
        ("a.wav", np.zeros(9), RATE, "PCM_8", "expected PCM_16, PCM_24 or FLOAT"),
        ("a.flac", np.zeros(9), RATE, "FLOAT", "expected PCM_16 or PCM_24"),
        ("a.wav", np.zeros(9), 0, "PCM_16", "a rate of 0 Hz"),
        ("a.flac", np.zeros(9), 700000, "PCM_16", "a rate of 700000 Hz"),
        ("none/a.wav", np.zeros(9), RATE, "PCM_16", "cannot be written .No such file"),
        ("file/a.wav", np.zeros(9), RATE, "PCM_16", "cannot be written .Not a directory"),
    ],
)
def test_bad_output_is_one_clear_line(tmp_path, name, audio, rate, subtype, says):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=says) as error:
        write_audio(tmp_path / name, audio, rate, subtype=subtype)
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["file"]


def test_a_wav_of_over_4_gb_is_refused(tmp_path):
    huge = np.broadcast_to(np.float32(0), 2**31)
    with pytest.raises(InputError, match=r"do not fit a .wav; write .flac"):
        write_audio(tmp_path / "a.wav", huge, RATE)


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_U8", 0.01),
        ("a.wav", "PCM_16", 2e-5),
        ("a.wav", "DOUBLE", 1e-6),
        ("a.flac", "PCM_16", 2e-5),
        ("a.ogg", "VORBIS", 0.02),
        ("a.mp3", "MPEG_LAYER_III", 0.02),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_reads_what_libsndfile_reads(tmp_path, name, subtype, tolerance, channels, rate):
    audio = clips.wave(clips.FILES[0])[:40000] * 0.8
    shape = np.stack([audio] + [audio * 0.5] * (channels - 1), axis=1)
    soundfile.write(tmp_path / name, shape, rate, subtype)
    back, found = read_audio(tmp_path / name)
    assert (found, back.dtype, back.ndim) == (rate, np.float32, 1)
    assert len(back) == len(audio)
    mono = shape.mean(axis=1)
    assert np.sqrt(np.mean((back - mono) ** 2)) <= tolerance  # speech at 0.05
    resampled, wanted = read_audio(tmp_path / name, RATE)
    assert wanted == RATE
    assert np.array_equal(resampled, soxr.resample(back, rate, RATE, quality="VHQ"))


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [
        (".wav", "PCM_16"),
        (".wav", "PCM_24"),
        (".wav", "FLOAT"),
        (".flac", "PCM_16"),
        (".flac", "PCM_24"),
    ],
)
@pytest.mark.parametrize("sizes", [[1], [9999], [1, 0, 4095, 5000, 1]])
def test_written_in_parts_is_written_at_once(tmp_path, suffix, subtype, sizes):
    audio = np.random.default_rng(0).normal(0, 0.5, sum(sizes)).astype(np.float32)
    whole = write_audio(tmp_path / f"whole{suffix}", audio, RATE, subtype=subtype)
    with open_audio(tmp_path / f"parts{suffix}", RATE, subtype=subtype) as writer:
        for part in np.split(audio, np.cumsum(sizes)[:-1]):
            writer.write(part)
    assert not list(tmp_path.glob(".*"))
    assert writer.report == replace(whole, path=tmp_path / f"parts{suffix}")
    whole_bytes = (tmp_path / f"whole{suffix}").read_bytes()
    assert (tmp_path / f"parts{suffix}").read_bytes() == whole_bytes


def write_parts(target, *parts):
    with open_audio(target, RATE) as writer:
        for part in parts:
            writer.write(np.asarray(part, np.float32))


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_bad_part_leaves_nothing(tmp_path, name):
    with pytest.raises(EngineError, match="NaN"):
        write_parts(tmp_path / name, np.zeros(1000), [0.0, np.nan])
    with pytest.raises(InputError, match="no samples"):
        write_parts(tmp_path / name)
    assert not os.listdir(tmp_path)


def test_a_wav_ends_where_its_header_cannot_count(tmp_path, monkeypatch):
    monkeypatch.setattr("fastglow.audio.writing.MAX_WAV", 1000)
    with pytest.raises(InputError, match=r"write \.flac"):
        write_parts(tmp_path / "a.wav", np.zeros(400), np.zeros(400))
    assert not os.listdir(tmp_path)


def test_a_file_longer_than_a_block(tmp_path, monkeypatch):
    audio = clips.wave(clips.FILES[0])
    monkeypatch.setattr("fastglow.audio.writing.BLOCK", 1000)
    write_audio(tmp_path / "a.wav", audio, RATE)
    write_audio(tmp_path / "a.flac", audio, RATE)
    assert np.array_equal(read_audio(tmp_path / "a.wav")[0], audio)
    assert np.array_equal(read_audio(tmp_path / "a.flac")[0], audio)


def wav(data: bytes, **header: int) -> bytes:
    """A PCM_16 mono .wav with parts of its header replaced."""
    values = {"tag": 1, "channels": 1, "rate": RATE, "size": len(data)} | header
    form = (values["tag"], values["channels"], values["rate"], 2 * values["rate"], 2, 16)
    return (
        struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, *form)
        + struct.pack("<4sI", b"data", values["size"])
        + data
    )


def nan_wav(folder: Path) -> bytes:
    soundfile.write(folder / "nan.wav", np.array([0, np.nan]), RATE, "FLOAT")
    return (folder / "nan.wav").read_bytes()


BAD = {
    "nothing": (b"", "the file is empty"),
    "text": (b"hello, this is no audio\n" * 9, "cannot be read as audio"),
    "header only": (wav(b""), "holds no samples"),
    "cut": (wav(b"")[:20], "cannot be read as audio"),
    "rate 1": (wav(b"\0\0" * 99, rate=1), "a rate of 1 Hz; expected 1000 to 768000"),
    "no channels": (wav(b"\0\0" * 99, channels=0), "cannot be read as audio"),
}


@pytest.mark.parametrize(("data", "says"), BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_line(tmp_path, data, says):
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with pytest.raises(InputError, match=says) as error:
        read_audio(path, RATE)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_other_bad_inputs(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_audio(tmp_path / "none.wav")
    with pytest.raises(InputError, match="is a folder"):
        read_audio(tmp_path)
    (tmp_path / "a.wav").write_bytes(nan_wav(tmp_path))
    with pytest.raises(InputError, match="NaN or infinite"):
        read_audio(tmp_path / "a.wav")
    (tmp_path / "b.wav").write_bytes(wav(b"\0\1" * 99))
    with pytest.raises(InputError, match=r"b.wav: a rate of 5 Hz"):
        read_audio(tmp_path / "b.wav", 5)


@pytest.mark.parametrize("size", [None, 0x7FFFF000, 2**32 - 1])
def test_a_wav_that_was_cut_short_is_refused_unless_its_header_cannot_know(tmp_path, size):
    """With another chunk before the samples, of an odd length."""
    whole = wav(b"\0\1" * 99, size=size or 198)
    whole = whole[:36] + struct.pack("<4sI", b"LIST", 3) + b"abc\0" + whole[36:]
    (tmp_path / "whole.wav").write_bytes(whole)
    assert len(read_audio(tmp_path / "whole.wav")[0]) == 99
    (tmp_path / "cut.wav").write_bytes(whole[:-44])  # as if the header counted itself
    assert len(read_audio(tmp_path / "cut.wav")[0]) == 77
    (tmp_path / "cut.wav").write_bytes(whole[:-66])
    if size:
        assert len(read_audio(tmp_path / "cut.wav")[0]) == 66
    else:
        with pytest.raises(InputError, match=r"cut.wav: is cut short: .* 198 bytes .* 132 are"):
            read_audio(tmp_path / "cut.wav")


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
@pytest.mark.parametrize("suffix", [b".wav", b".flac"])
def test_a_name_that_is_no_text(tmp_path, suffix):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe" + suffix))
    audio = np.linspace(-0.5, 0.5, 99, dtype=np.float32)
    write_audio(path, audio, RATE)
    assert np.abs(read_audio(path)[0] - audio).max() < 1e-4


def test_a_header_that_promises_4_gb_allocates_little(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(b"\0\1" * 99, size=2**32 - 2))
    tracemalloc.start()
    assert len(read_audio(tmp_path / "a.wav")[0]) == 99
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()
