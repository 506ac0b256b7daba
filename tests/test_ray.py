"""A corpus on a Ray cluster: the plain run's bytes, also when workers are killed."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import ray as library

from fastglow import ray
from fastglow.checkpoint import save_safetensors
from fastglow.errors import EngineError, InputError, OutputError
from fastglow.job import Recipe, Task

from models import TINY, random_weights

COUNT = 500  # of 0.2 to 0.5 s


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and mels."""
    folder = tmp_path_factory.mktemp("ray")
    save_safetensors(random_weights(TINY), folder / "model", dtype="float32")
    (folder / "mels").mkdir()
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        mel = rng.uniform(-9, 0, (TINY.n_mel_channels, int(rng.integers(17, 44))))
        np.save(folder / "mels" / f"{i}.npy", mel.astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def cluster():
    """One of this machine, of two CPUs, which what runs within it shares."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    library.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, paths))}},
    )
    yield
    library.shutdown()


def recipe(place: Path) -> Recipe:
    return Recipe(model=str(place / "model"), device="cpu", threads=1)


def test_a_cluster_that_cannot_be_joined_is_one_line() -> None:
    class Unreachable:
        def init(self, address: str, **quiet: object) -> None:
            raise ConnectionError(f"Failed to connect to Ray cluster\nat {address}")

    with pytest.raises(
        InputError, match=r"^--ray-address far:1: .*cluster at far:1.*RAY_AUTH_MODE"
    ):
        ray._connect(Unreachable(), "far:1")


def tasks(place: Path, out: Path, count: int = COUNT) -> list[Task]:
    return [Task(place / "mels" / f"{i}.npy", out / f"{i}.wav") for i in range(count)]


def ignore(message: str) -> None:
    pass


def contents(folder: Path) -> dict[str, bytes]:
    files = folder.rglob("*.wav")
    return {path.name: path.read_bytes() for path in files if path.name[0] != "."}


@pytest.fixture(scope="module")
def expected(place: Path) -> dict[str, bytes]:
    list(recipe(place).load().run(tasks(place, place / "alone"), ignore))
    return contents(place / "alone")


def test_two_workers_killed_lose_no_file(cluster, place, expected, tmp_path) -> None:
    work, told, killed = tasks(place, tmp_path), [], set()
    for outcome in ray.vocode(work, recipe(place), workers=2, warn=ignore):
        assert outcome.error is None
        told.append(outcome.task.target)
        if len(told) in (20, 120):
            pid = int(outcome.worker.rpartition(":")[2])
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
    assert len(killed) == 2
    assert sorted(told) == sorted(task.target for task in work)  # each once
    assert contents(tmp_path) == expected


@dataclass(frozen=True)
class Deadly(Task):
    """Reading it kills the process."""

    @property
    def is_audio(self) -> bool:
        os.kill(os.getpid(), signal.SIGKILL)
        return False


@dataclass(frozen=True)
class Failing(Task):
    """Reading it is an error that nobody foresaw."""

    @property
    def is_audio(self) -> bool:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


@dataclass(frozen=True)
class Full:
    """Its place takes no more."""

    source: Path
    is_audio: bool = False

    @property
    def target(self) -> Path:
        raise OutputError("No space left")


@pytest.mark.parametrize(("kind", "reason"), [(Deadly, "process killed"), (Failing, "CUDA error")])
def test_a_file_that_kills_every_worker_ends_the_run(
    cluster, place, tmp_path, kind, reason
) -> None:
    bad = kind(place / "mels" / "0.npy", tmp_path / "bad.wav")
    with pytest.raises(EngineError, match=rf"0\.npy.* {ray.RETRIES + 1} workers died .*{reason}"):
        list(ray.vocode([bad], recipe(place), workers=1, warn=ignore))


def test_bad_files_and_warnings_come_back(cluster, place, tmp_path) -> None:
    (tmp_path / "bad.npy").write_bytes(b"no mel")
    work = [*tasks(place, tmp_path, 3), Task(tmp_path / "bad.npy", tmp_path / "bad.wav")]
    warnings: list[str] = []
    outcomes = list(ray.vocode(work, recipe(place), workers=1, warn=warnings.append))
    failed = [outcome for outcome in outcomes if outcome.error]
    assert [type(outcome.error) for outcome in failed] == [InputError]
    assert "bad.npy" in str(failed[0].error)
    assert len(outcomes) == 4
    assert len(warnings) == 3  # noise is no speech


def test_an_output_that_cannot_be_written_is_its_own_error(cluster, place) -> None:
    work = [Task(place / "mels" / "0.npy", place / "mels" / "1.npy" / "0.wav")]
    (outcome,) = ray.vocode(work, recipe(place), workers=1, warn=ignore)
    assert isinstance(outcome.error, InputError)
    assert "1.npy" in str(outcome.error)


def test_a_place_that_takes_no_more_ends_the_run(cluster, place, tmp_path) -> None:
    work = [Full(task.source) for task in tasks(place, tmp_path, 4)]
    with pytest.raises(OutputError, match="No space left"):
        list(ray.vocode(work, recipe(place), workers=1, warn=ignore))


def test_what_the_cluster_has_no_room_for_is_refused(cluster, place, tmp_path) -> None:
    for workers in (0, 3):
        with pytest.raises(InputError, match=f"workers={workers}: .* room for 2, of 1 CPUS"):
            list(ray.vocode(tasks(place, tmp_path, 1), recipe(place), workers=workers))
    with pytest.raises(InputError, match="gone"):
        list(ray.vocode(tasks(place, tmp_path, 1), Recipe(model="gone", device="cpu")))
    assert not contents(tmp_path)


def test_the_command_is_quiet_and_goes_on_from_its_journal(place, expected, tmp_path) -> None:
    command = [sys.executable, "-m", "fastglow", "vocode", "--list", "few.txt", "-m", "model"]
    command += ["-o", str(tmp_path / "out"), "--device", "cpu", "--mel-scale", "ln"]
    command += ["--journal", str(tmp_path / "j.jsonl"), "--engine", "ray", "--workers", "1"]
    for count, told in ((2, "2 files, "), (5, "3 files, ")):
        (place / "few.txt").write_text("".join(f"mels/{i}.npy\n" for i in range(count)))
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(told)
        assert done.stdout.count("\n") == 1
        other = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
        assert all("core_worker.cc" in line for line in other)  # which nothing silences
    assert contents(tmp_path / "out") == {f"{i}.wav": expected[f"{i}.wav"] for i in range(5)}


def test_without_ray_one_line_says_how_to_get_it(place, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(InputError, match=r"pip install 'fastglow\[ray\]'"):
        list(ray.vocode(tasks(place, tmp_path, 1), recipe(place)))


def test_fastglow_imports_no_ray() -> None:
    code = (
        "import sys, fastglow; fastglow.Vocoder; import fastglow.ray; print('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
