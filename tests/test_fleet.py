"""Processes that share a corpus: what they do together, and what one that dies leaves to others."""

import os
import pickle
import signal
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fastglow import errors
from fastglow.checkpoint import save_safetensors
from fastglow.errors import EngineError, InputError
from fastglow.fleet import RESTARTS, Fleet, parse_devices
from fastglow.job import Outcomes, Recipe, Task

from models import TINY, random_weights

COUNT = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and mels."""
    folder = tmp_path_factory.mktemp("fleet")
    save_safetensors(random_weights(TINY), folder / "model", dtype="float32")
    (folder / "mels").mkdir()
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        mel = rng.uniform(-9, 0, (TINY.n_mel_channels, int(rng.integers(10, 60))))
        np.save(folder / "mels" / f"{i}.npy", mel.astype(np.float32))
    return folder


def recipe(place: Path) -> Recipe:
    return Recipe(model=str(place / "model"), device="cpu", threads=1, together=60)


def tasks(place: Path, out: Path, count: int = COUNT) -> list[Task]:
    return [Task(place / "mels" / f"{i}.npy", out / f"{i}.wav") for i in range(count)]


def ignore(message: str) -> None:
    pass


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def expected(place: Path) -> dict[str, bytes]:
    list(recipe(place).load().run(tasks(place, place / "alone"), ignore))
    return contents(place / "alone")


def killing(outcomes: Outcomes, fleet: Fleet, after: list[int]) -> list[Path]:
    """The targets that were told done, with processes killed after so many."""
    told = []
    for outcome in outcomes:
        assert outcome.error is None
        told.append(outcome.task.target)
        if len(told) in after:
            victim = next(one for one in fleet._processes if one.name == outcome.worker)
            os.kill(victim.process.pid or 0, signal.SIGKILL)
    return told


def test_processes_that_are_killed_lose_no_file(place, expected, tmp_path) -> None:
    fleet, warnings = Fleet(recipe(place), ["cpu", "cpu"]), []
    work = tasks(place, tmp_path)
    told = killing(fleet.run(work, warnings.append), fleet, [3, 20, 30])
    assert sorted(told) == sorted(task.target for task in work)  # each once
    found = {name: data for name, data in contents(tmp_path).items() if name[0] != "."}
    assert found == expected
    assert sum("died (signal 9)" in warning for warning in warnings) == 3


def test_a_run_begins_when_all_have_loaded(place, tmp_path) -> None:
    fleet = Fleet(recipe(place), ["cpu", "cpu"])
    with closing(fleet.run(tasks(place, tmp_path), ignore)) as outcomes:
        assert [one.connection.poll() for one in fleet._processes] == [True, True]
        assert not list(tmp_path.iterdir())
        assert len(list(outcomes)) == COUNT


def test_processes_that_die_again_and_again_are_one_error(place, expected, tmp_path) -> None:
    fleet = Fleet(recipe(place), ["cpu", "cpu"])
    with pytest.raises(EngineError, match=f"{RESTARTS + 1} processes died.*signal 9"):
        killing(fleet.run(tasks(place, tmp_path), ignore), fleet, list(range(1, 40)))
    found = {name: data for name, data in contents(tmp_path).items() if name[0] != "."}
    assert found
    assert found.items() <= expected.items()


def test_bad_files_and_warnings_come_back(place, tmp_path) -> None:
    (tmp_path / "bad.npy").write_bytes(b"no mel")
    work = [*tasks(place, tmp_path, 5), Task(tmp_path / "bad.npy", tmp_path / "bad.wav")]
    warnings: list[str] = []
    outcomes = list(Fleet(recipe(place), ["cpu", "cpu"]).run(work, warnings.append))
    failed = [outcome for outcome in outcomes if outcome.error]
    assert [outcome.task.target.name for outcome in failed] == ["bad.wav"]
    assert isinstance(failed[0].error, InputError)
    assert len(outcomes) == 6
    assert len(warnings) == 5  # noise is no speech


def test_a_model_that_cannot_be_loaded_is_its_own_error(place, tmp_path) -> None:
    gone = Recipe(model=str(place / "gone"), device="cpu")
    with pytest.raises(InputError, match="gone"):
        list(Fleet(gone, ["cpu", "cpu"]).run(tasks(place, tmp_path), ignore))


def test_closed_early_it_leaves_no_process_and_no_torn_file(place, expected, tmp_path) -> None:
    fleet = Fleet(recipe(place), ["cpu", "cpu"])
    with closing(fleet.run(tasks(place, tmp_path), ignore)) as outcomes:
        next(outcomes)
        processes = [one.process for one in fleet._processes]
    assert len(processes) == 2
    assert not any(process.is_alive() for process in processes)
    assert contents(tmp_path).items() <= expected.items()


def test_little_work_starts_few_processes(place, tmp_path) -> None:
    fleet = Fleet(recipe(place), ["cpu"] * 50)
    names = {outcome.worker for outcome in fleet.run(tasks(place, tmp_path, 1), ignore)}
    assert names == {"cpu#0"}
    assert list(Fleet(recipe(place), ["cpu"] * 50).run([], ignore)) == []


def test_every_error_survives_the_way_between_processes() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(kinds) >= 5
    for kind in kinds:
        copy = pickle.loads(pickle.dumps(kind("why")))
        assert type(copy) is kind
        assert str(copy) == "why"


def test_devices_are_read(monkeypatch) -> None:
    assert parse_devices("auto") == ["auto"]
    assert parse_devices("cuda:0, cuda:3") == ["cuda:0", "cuda:3"]
    assert parse_devices("cpu,cpu") == ["cpu", "cpu"]
    monkeypatch.setattr("fastglow.fleet.probe.visible", lambda: [None, None])
    assert parse_devices("cuda:all") == ["cuda:0", "cuda:1"]
    for bad in ("cpu,", "auto,cpu", "cuda:0,cpu", "cuda:all,cuda:1"):
        with pytest.raises(InputError):
            parse_devices(bad)
