"""`fastglow vocode` over folders: together as alone, in shards, through kills and full disks."""

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fastglow.checkpoint import save_safetensors
from fastglow.cli.corpus import WARNINGS, vocode_files
from fastglow.corpus import Outcome
from fastglow.job import Outcomes, Task, Written

from models import TINY, random_weights


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and a folder of mels of 1 to 60 frames."""
    folder = tmp_path_factory.mktemp("corpus")
    save_safetensors(random_weights(TINY), folder / "model", dtype="float32")
    rng = np.random.default_rng(0)
    for i in range(40):
        mel = rng.uniform(-9, 0, (TINY.n_mel_channels, int(rng.integers(1, 61))))
        (folder / "mels" / f"{i % 3}").mkdir(parents=True, exist_ok=True)
        np.save(folder / "mels" / f"{i % 3}" / f"{i}.npy", mel.astype(np.float32))
    return folder


@pytest.fixture
def cli(monkeypatch, place, fastglow_command):
    monkeypatch.chdir(place)
    return fastglow_command


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def finished(folder: Path) -> int:
    """Whole outputs, by name: while a run goes on its other files vanish under the reader."""
    return len(list(folder.rglob("*.wav")))


@pytest.fixture(scope="module")
def expected(place: Path) -> dict[str, bytes]:
    """Every file alone."""
    out = place / "alone"
    run(place, "-o", str(out), "--together", "1").wait()
    found = contents(out)
    assert len(found) == 40
    return found


def run(place: Path, *arguments: str, group: bool = False) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fastglow", "vocode", "mels", "-m", "model", "--quiet"]
    return subprocess.Popen(
        [*command, "--device", "cpu", *arguments],
        cwd=place,
        start_new_session=group,
        preexec_fn=heed_interrupts,
    )


def heed_interrupts() -> None:
    """Shells start what runs in the background, these tests perhaps, with Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("together", [100, 0])
def test_files_computed_together_are_those_computed_alone(
    cli, place, expected, tmp_path, together
) -> None:
    status, out, err = cli("vocode", "mels", "-m", "model", "-o", tmp_path, "--together", together)
    assert status == 0, err
    assert "40 files" in out
    assert contents(tmp_path) == expected


def test_shards_together_are_the_whole(cli, expected, tmp_path) -> None:
    for i in (1, 2, 3):
        before = set(contents(tmp_path))
        assert cli("vocode", "mels", "-m", "model", "-o", tmp_path, "--shard", f"{i}/3")[0] == 0
        assert len(set(contents(tmp_path)) - before) == (14 if i == 1 else 13)
    assert contents(tmp_path) == expected


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"])
def test_a_shard_that_is_none_is_refused(cli, tmp_path, shard) -> None:
    status, _, err = cli("vocode", "mels", "-m", "model", "-o", tmp_path, "--shard", shard)
    assert status == 2
    assert "i from 1 to n" in err


@pytest.mark.parametrize(
    ("number", "word"), [(errno.ENOSPC, "space"), (errno.EROFS, "[Rr]ead-only")]
)
def test_a_place_that_takes_no_more_gives_one_error(
    cli, expected, tmp_path, monkeypatch, number, word
) -> None:
    room, replace = iter(range(10)), os.replace

    def full(source, target):
        if next(room, None) is None:
            raise OSError(number, os.strerror(number))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("fastglow.atomic.os.replace", full)
        status, _, err = cli("vocode", "mels", "-m", "model", "-o", tmp_path, "--together", 50)
    assert status == 2
    assert err.count("error: ") == 1
    assert err.count("warning: ") == WARNINGS + 1  # and that there are more
    assert re.search(word, err)
    kept = contents(tmp_path)
    assert len(kept) == 10
    assert kept.items() <= expected.items()
    again = ("vocode", "mels", "-m", "model", "-o", tmp_path, "--skip-existing")
    status, out, _ = cli(*again)
    assert status == 0
    assert "10 skipped" in out
    assert contents(tmp_path) == expected


def test_killed_again_and_again_every_file_is_there_once_and_whole(
    place, expected, tmp_path
) -> None:
    rng = random.Random(0)
    for _ in range(4):
        process = run(place, "-o", str(tmp_path), "--skip-existing", "--together", "60")
        before, limit = finished(tmp_path), time.monotonic() + 30
        while process.poll() is None and time.monotonic() < limit:
            if finished(tmp_path) > before + rng.randrange(8):
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        process.wait()
    whole = {name: data for name, data in contents(tmp_path).items() if not hidden(name)}
    assert whole.items() <= expected.items()
    assert run(place, "-o", str(tmp_path), "--skip-existing").wait() == 0
    found = {name: data for name, data in contents(tmp_path).items() if not hidden(name)}
    assert found == expected


def hidden(name: str) -> bool:
    return Path(name).name.startswith(".")


def test_processes_on_several_devices_give_the_same_files(place, expected, tmp_path) -> None:
    arguments = ("--threads", "1", "--together", "60", "--journal", str(tmp_path / "j.jsonl"))
    process = run(place, "-o", str(tmp_path / "out"), "--device", "cpu,cpu", *arguments)
    assert process.wait() == 0
    assert contents(tmp_path / "out") == expected
    lines = [json.loads(line) for line in (tmp_path / "j.jsonl").read_text().splitlines()]
    assert {line["worker"] for line in lines if "worker" in line} == {"cpu#0", "cpu#1"}
    assert set(lines[-1]["run"]["busy"]) == {"cpu#0", "cpu#1"}


def test_a_log_tells_how_far_it_is(cli, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("fastglow.cli.progress.EVERY", 0.0)
    status, _, err = cli("vocode", "mels", "-m", "model", "-o", tmp_path / "out", "--together", 1)
    assert status == 0
    assert re.search(r"^20 of 40, [\d.]+ x real time, \d:\d\d:\d\d left$", err, re.MULTILINE)
    assert "40 of 40" not in err
    err = cli("vocode", "mels", "-m", "model", "-o", tmp_path / "out", "--quiet")[2]
    assert "of 40" not in err


def test_a_run_s_clock_ends_with_its_last_file(tmp_path) -> None:
    def run(tasks: object, warn: object) -> Outcomes:
        yield Outcome(Task(tmp_path / "a.npy", tmp_path / "a.wav"), Written(22050, 0.5, 0, 44144))
        time.sleep(1)  # as long as processes take to end

    totals = vocode_files([], run, 22050, skip_existing=False, journal=None, quiet=True)
    assert (totals.done, totals.seconds) == (1, 1.0)
    assert totals.wall < 0.5


def test_ctrl_c_ends_all_processes_and_what_is_written_is_whole(place, expected, tmp_path) -> None:
    process = run(place, "-o", str(tmp_path), "--device", "cpu,cpu", "--threads", "1", group=True)
    limit = time.monotonic() + 60
    while not any(tmp_path.rglob("*.wav")) and time.monotonic() < limit:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() != 0
    while alive(process.pid) and time.monotonic() < limit:
        time.sleep(0.01)
    assert not alive(process.pid)
    found = contents(tmp_path)
    assert found
    assert found.items() <= expected.items()


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--engine", "abacus"], "abacus"),
        (["--workers", "2"], "--engine ray"),
        (["--ray-address", "auto"], "--engine ray"),
        (["--engine", "ray", "--workers", "0"], "workers"),
        (["--device", "cpu,abacus"], "abacus"),
        (["--device", "cpu,"], "cpu,"),
        (["--device", "cpu,cuda"], "one kind"),
        (["--device", "cpu,cpu", "--precision", "fp3"], "fp3"),
        (["--engine", "ray", "--device", "cpu,cpu"], "cpu,cpu"),
    ],
)
def test_options_that_make_no_sense_are_one_line(cli, tmp_path, arguments, word) -> None:
    status, _, err = cli("vocode", "mels", "-m", "model", "-o", tmp_path / "out", *arguments)
    assert status == 2
    assert word in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
