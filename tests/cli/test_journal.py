"""The journal of `fastglow vocode`: what it holds, when it is refused, how a run goes on."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastglow.checkpoint import save_safetensors
from fastglow.cli.journal import Journal
from fastglow.corpus import Outcome
from fastglow.errors import InputError
from fastglow.job import Task, Written

from models import TINY, random_weights

SETTINGS = {"voice": "v", "sha256": "abc", "seed": 0}
FILES = 6


@pytest.fixture
def cli(monkeypatch, tmp_path, fastglow_command):
    """`fastglow vocode in -m model -o out --journal j.jsonl`, in a folder of mels."""
    monkeypatch.chdir(tmp_path)
    save_safetensors(random_weights(TINY), tmp_path / "model", dtype="float32")
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for i in range(FILES):
        mel = rng.uniform(-9, 0, (TINY.n_mel_channels, 10 + i))
        np.save(tmp_path / "in" / f"{i}.npy", mel.astype(np.float32))

    def call(*arguments):
        common = ("in", "-m", "model", "-o", "out", "--journal", "j.jsonl")
        return fastglow_command("vocode", *common, *arguments)

    return call


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_it_holds_settings_files_and_totals(cli, tmp_path) -> None:
    (tmp_path / "in" / "bad.npy").write_bytes(b"no mel")
    status, out, _ = cli("--seed", 3)
    assert status == 2
    first, *files, last = lines(tmp_path / "j.jsonl")
    assert first["seed"] == 3
    assert first["device"] in ("cpu", "cuda")
    assert len(str(first["sha256"])) == 64
    assert {"precision", "conditioning", "sigma", "denoise", "subtype"} <= set(first)
    assert (first["match_mel"], first["match_audio"]) == (0, 1)  # what is usual for each
    by_name = {Path(str(line["source"])).stem: line for line in files}
    assert set(by_name) == {"bad", *map(str, range(FILES))}
    assert "bad.npy" in str(by_name["bad"]["error"])
    for i in range(FILES):
        samples = TINY.samples(10 + i)
        assert by_name[str(i)]["samples"] == samples
        assert by_name[str(i)]["size"] == (tmp_path / "out" / f"{i}.wav").stat().st_size
    run = last["run"]
    total = sum(TINY.samples(10 + i) for i in range(FILES)) / TINY.sampling_rate
    assert run["files"] == FILES
    assert run["failed"] == 1
    assert run["audio_seconds"] == pytest.approx(total, abs=1e-3)
    assert 0 < run["computing_seconds"] <= run["wall_seconds"] + 1e-3
    assert run["times_real_time"] == pytest.approx(total / run["wall_seconds"], rel=0.05)
    assert all(0 < share <= 1 for share in run["busy"].values())
    assert re.search(r"s of audio in .* x real time.* computing \d+ % of the time", out)


def test_the_same_command_does_what_is_missing(cli, tmp_path) -> None:
    (tmp_path / "in" / "bad.npy").write_bytes(b"no mel")
    assert cli()[0] == 2
    before = stamps(tmp_path / "out")
    (tmp_path / "out" / "0.wav").unlink()
    (tmp_path / "out" / "1.wav").write_bytes(b"torn")
    np.save(tmp_path / "in" / "bad.npy", np.load(tmp_path / "in" / "2.npy"))
    status, out, _ = cli()
    assert status == 0
    assert "3 files, " in out
    assert f"{FILES - 2} skipped" in out
    after = stamps(tmp_path / "out")
    assert {name for name in after if after[name] != before.get(name)} == {
        "0.wav",
        "1.wav",
        "bad.wav",
    }
    assert f"{FILES + 1} skipped" in cli()[1]


def test_an_input_that_has_changed_is_done_again_and_one_that_is_gone_is_not(cli, tmp_path) -> None:
    assert cli()[0] == 0
    before = stamps(tmp_path / "out")
    np.save(tmp_path / "in" / "0.npy", np.load(tmp_path / "in" / "0.npy") + np.float32(0.5))
    os.utime(tmp_path / "in" / "1.npy", ns=(0, 0))
    status, out, _ = cli()
    assert (status, f"{FILES - 2} skipped" in out) == (0, True)
    after = stamps(tmp_path / "out")
    assert {name for name in after if after[name] != before[name]} == {"0.wav", "1.wav"}
    assert f"{FILES} skipped" in cli()[1]
    (tmp_path / "in" / "2.npy").unlink()
    with Journal(tmp_path / "j.jsonl", lines(tmp_path / "j.jsonl")[0]) as journal:
        assert journal.has(Task(Path("in/2.npy"), Path("out/2.wav")))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seed", "1"], "seed was 0 and is 1"),
        (["--sigma", "0.5"], "sigma was 0.6 and is 0.5"),
        (["--subtype", "PCM_24"], "subtype was 'PCM_16' and is 'PCM_24'"),
        (["--conditioning", "published"], "conditioning was 'phases' and is 'published'"),
    ],
)
def test_other_settings_are_refused_by_name(cli, tmp_path, arguments, told) -> None:
    assert cli()[0] == 0
    before = (tmp_path / "j.jsonl").read_bytes()
    status, _, err = cli(*arguments)
    assert status == 2
    assert told in err
    assert "another journal" in err
    assert err.count("\n") == 1
    assert (tmp_path / "j.jsonl").read_bytes() == before


def test_another_voice_is_refused_and_the_same_elsewhere_is_not(cli, tmp_path) -> None:
    assert cli()[0] == 0
    (tmp_path / "model").rename(tmp_path / "moved")
    assert cli("-m", "moved")[0] == 0
    save_safetensors(random_weights(TINY, seed=1), tmp_path / "model", dtype="float32")
    status, _, err = cli()
    assert status == 2
    assert "sha256 was" in err


def test_a_place_that_takes_no_journal_is_one_line(cli, tmp_path) -> None:
    status, _, err = cli("--journal", tmp_path)
    assert status == 2
    assert "the journal cannot be opened" in err


def outcome(name: str, size: int = 4) -> Outcome[Task, Written]:
    return Outcome(Task(Path(name), Path(f"{name}.wav")), written=Written(2, 0.5, 0, size))


def test_wherever_the_last_line_is_torn_the_rest_counts(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "j.jsonl"
    with Journal(path, SETTINGS) as journal:
        for name in ("a", "b"):
            Path(f"{name}.wav").write_bytes(b"1234")
            journal.tell(outcome(name))
    data = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        with Journal(path, SETTINGS) as journal:
            assert journal.has(outcome("a").task) == (length >= ends[1])
            assert journal.has(outcome("b").task) == (length >= ends[2])
            journal.tell(outcome("c"))
        assert lines(path)[0]["seed"] == 0
        assert lines(path)[-1]["source"] == "c"


@pytest.mark.parametrize(
    "damage",
    [
        b"no json",
        b"[1]",
        b'{"source": "a"}',
        b"\xff\xfe",
        b'{"source": 1, "target": 2}',
        b'{"source": "a", "target": "b", "size": 1, "stamp": 2}',
    ],
)
def test_any_other_damaged_line_is_named(tmp_path, damage) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, SETTINGS) as journal:
        journal.tell(outcome("a"))
    path.write_bytes(path.read_bytes() + damage + b"\n")
    with pytest.raises(InputError, match="line 3 is damaged"):
        Journal(path, SETTINGS)
    assert path.read_bytes().endswith(damage + b"\n")


@pytest.mark.parametrize("content", [b"my notes", b"my notes\n", b'{"source": "a"}\n', b"\0" * 99])
def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path, content) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no journal"):
        Journal(path, SETTINGS)
    assert path.read_bytes() == content


def test_two_runs_do_not_share_a_journal(tmp_path) -> None:
    path = tmp_path / "j.jsonl"
    code = (
        "import sys; from pathlib import Path; from fastglow.cli.journal import Journal\n"
        f"with Journal(Path({str(path)!r}), {SETTINGS!r}): print('open', flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as other:
        assert other.stdout
        assert other.stdout.readline() == "open\n"
        with pytest.raises(InputError, match="another run is writing"):
            Journal(path, SETTINGS)
        other.communicate("\n")
    Journal(path, SETTINGS).__exit__(None, None, None)


def test_an_input_that_changes_while_it_is_done_is_done_again(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").write_bytes(b"mel")
    Path("a.wav").write_bytes(b"1234")
    for changed in (True, False):
        with Journal(tmp_path / "j.jsonl", SETTINGS) as journal:
            assert not journal.has(outcome("a").task)
            if changed:
                os.utime("a", ns=(7, 7))
            journal.tell(outcome("a"))
    with Journal(tmp_path / "j.jsonl", SETTINGS) as journal:
        assert journal.has(outcome("a").task)


def test_a_later_line_counts(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.wav").write_bytes(b"1234")
    good, path = outcome("a"), tmp_path / "j.jsonl"
    bad: Outcome[Task, Written] = Outcome(good.task, error=InputError("bad"))
    for told, has in (([good], True), ([bad], False), ([good], True)):
        with Journal(path, SETTINGS) as journal:
            for one in told:
                journal.tell(one)
        with Journal(path, SETTINGS) as journal:
            assert journal.has(good.task) == has
            assert not journal.has(Task(Path("other"), good.task.target))
