"""Recordings are found as named, and each way to be unfit is told."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from fastglow.errors import InputError
from fastglow.training.check import read_recordings
from fastglow.training.sources import Source, find_sources

RATE = 8000


def tone(seconds: float, rate: int = RATE, level: float = 0.3) -> np.ndarray:
    return level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)


def names(sources: list[Source], base: Path) -> list[tuple[str, float]]:
    return [(s.path.relative_to(base).as_posix(), s.weight) for s in sources]


def test_files_folders_and_lists_are_found_once(tmp_path: Path) -> None:
    for name in ("d/b.WAV", "d/sub/a.flac", "d/notes.md", "c.ogg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "l.txt").write_text("# comment\n\nc.ogg|what is said\nd/b.WAV\n")
    (tmp_path / "w.tsv").write_text("speaker\tfile\tweight\nx\tc.ogg\t2.5\n")
    (tmp_path / "plain.tsv").write_text("c.ogg\t4\nd/b.WAV\n")
    assert names(find_sources(["d", "c.ogg", "d/b.WAV"], tmp_path), tmp_path) == [
        ("d/b.WAV", 1), ("d/sub/a.flac", 1), ("c.ogg", 1),
    ]  # fmt: skip
    assert names(find_sources(["l.txt"], tmp_path), tmp_path) == [("c.ogg", 1), ("d/b.WAV", 1)]
    assert names(find_sources(["w.tsv", "d"], tmp_path), tmp_path)[0] == ("c.ogg", 2.5)
    found = names(find_sources(["plain.tsv"], tmp_path), tmp_path)
    assert found == [("c.ogg", 4), ("d/b.WAV", 1)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none", None, "no such file or folder"),
        ("x.npy", "", "cannot tell what this is"),
        ("x.txt", None, "cannot read the list"),
        ("x.txt", "# nothing\n", "names no file"),
        ("x.tsv", "a.wav\t-1\n", r"x\.tsv:1: weight '-1'; expected a number over 0"),
        ("x.tsv", "path\tweight\na.wav\tmuch\n", r"x\.tsv:2: weight 'much'"),
        ("x.tsv", "speaker\tpath\nx\n", r"x\.tsv:2: has no column 2"),
    ],
)
def test_what_cannot_be_understood(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        find_sources([name], tmp_path)


def test_each_problem_is_told_and_counted(tmp_path: Path) -> None:
    clipped = np.clip(tone(1, level=3.0), -1, 1)
    broken = tone(1)
    broken[5] = np.nan
    files = {
        "good.wav": (tone(1), RATE),
        "fast.wav": (tone(1, 16000), 16000),
        "short.wav": (tone(0.05), RATE),
        "zero.wav": (np.zeros(RATE), RATE),
        "half.wav": (np.concatenate([np.zeros(RATE), tone(0.9)]), RATE),
        "clipped.wav": (clipped, RATE),
        "nan.wav": (broken, RATE),
    }
    for name, (wave, rate) in files.items():
        soundfile.write(tmp_path / name, wave, rate, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("no audio")
    ticks: list[None] = []
    sources = [Source(tmp_path / name, 2.0) for name in [*files, "text.wav", "absent.wav"]]
    kept, report = read_recordings(sources, RATE, 512, lambda: ticks.append(None))
    assert [r.path.name for r in kept] == ["good.wav", "fast.wav", "half.wav", "clipped.wav"]
    assert {r.weight for r in kept} == {2.0}
    assert (report.files, report.used, len(ticks)) == (9, 4, 9)
    assert report.seconds == pytest.approx(4.9)
    found = {key: [Path(p).name for p in paths] for key, paths in report.problems.items()}
    for words, name in (
        ("resampled from 16000 Hz", "fast.wav"),
        (r"left out, shorter than a segment (0.06 s)", "short.wav"),
        ("left out, nothing but digital silence", "zero.wav"),
        ("mostly digital silence", "half.wav"),
        ("clipped", "clipped.wav"),
        ("NaN or infinite", "nan.wav"),
        ("cannot be read as audio", "text.wav"),
        ("no such file", "absent.wav"),
    ):
        assert [paths for key, paths in found.items() if words in key] == [[name]], words
    text = "\n".join(report.lines("training"))
    assert "training: 4 of 9 recordings, 0 h 00 min 05 s at 8000 Hz" in text
    assert f"1 resampled from 16000 Hz: {tmp_path / 'fast.wav'}" in text


def test_what_is_read_is_what_was_recorded(tmp_path: Path) -> None:
    wave = np.arange(-600, 600, dtype=np.int16)
    soundfile.write(tmp_path / "a.flac", wave, RATE)
    soundfile.write(tmp_path / "b.wav", tone(1, 16000), 16000)
    kept, _ = read_recordings([Source(tmp_path / "a.flac"), Source(tmp_path / "b.wav")], RATE, 64)
    np.testing.assert_array_equal(kept[0].wave, wave)
    middle = slice(1000, 7000)
    np.testing.assert_allclose(kept[1].wave[middle] / 32768, tone(1)[middle], atol=1e-3)


def test_long_lists_of_names_are_cut(tmp_path: Path) -> None:
    sources = [Source(tmp_path / f"{i}.wav") for i in range(5)]
    kept, report = read_recordings(sources, RATE, 64)
    assert not kept
    line = report.lines("x")[1]
    assert line.startswith("  5 refused, no such file")
    assert line.endswith("2.wav, …")
