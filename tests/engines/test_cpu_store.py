"""Packed weights on disk: the same bits, never a damaged file's, and never more than is allowed."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastglow.checkpoint import load_weights, save_safetensors
from fastglow.checkpoint.weights import Weights
from fastglow.engines.cpu import CpuEngine, store
from fastglow.errors import EngineError
from fastglow.noise import SeededNoise
from fastglow.plan import Plan

from models import TINY, random_weights

MEL = np.random.default_rng(0).standard_normal((1, TINY.n_mel_channels, 7)).astype(np.float32)


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    save_safetensors(random_weights(TINY), tmp_path / "voice")
    return load_weights(tmp_path / "voice")


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder; the least size that is kept is lowered for a model this small."""
    monkeypatch.setenv("FASTGLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "SMALLEST", 0)
    return tmp_path / "cache" / "fastglow"


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("packed-*"))


def audio(weights: Weights, form: str = "phases") -> np.ndarray:
    engine = CpuEngine(Plan(weights, form), threads=2)  # type: ignore[arg-type]
    return engine.infer(MEL, SeededNoise((3,), 0.6), [7])


@pytest.fixture
def no_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("packed again")

    monkeypatch.setattr("fastglow.engines.cpu.machine.pack_flow", fail)


@pytest.fixture
def no_packing_later(weights: Weights, request: pytest.FixtureRequest) -> None:
    audio(weights)
    request.getfixturevalue("no_packing")


@pytest.mark.parametrize("form", ["phases", "published"])
def test_the_second_load_packs_nothing_and_sounds_the_same(
    weights: Weights, kept: Path, form: str, request: pytest.FixtureRequest
) -> None:
    first = audio(weights, form)
    assert len(files(kept)) == 1
    request.getfixturevalue("no_packing")
    assert np.array_equal(audio(weights, form), first)


def test_each_form_and_each_model_has_its_own(weights: Weights, kept: Path, tmp_path: Path) -> None:
    for form in ("phases", "published"):
        audio(weights, form)
    save_safetensors(random_weights(TINY, seed=1), tmp_path / "other")
    audio(load_weights(tmp_path / "other"))
    assert len(files(kept)) == 3


@pytest.mark.parametrize("place", [0, 20, 60, -1, "short", "empty"])
def test_a_damaged_file_is_packed_anew(weights: Weights, kept: Path, place: int | str) -> None:
    expected = audio(weights)
    (path,) = files(kept)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    if isinstance(place, int):
        # the last number, not the zeros that fill its line
        at = place if place >= 0 else max(np.flatnonzero(np.frombuffer(whole, np.uint8)))
        damaged[at] ^= 1
    path.unlink()
    path.write_bytes({"short": whole[: len(whole) // 2], "empty": b""}.get(str(place), damaged))
    assert np.array_equal(audio(weights), expected)
    assert path.read_bytes() == whole


def test_a_file_that_only_others_may_touch_serves(
    weights: Weights, no_packing_later: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(store.os, "utime", refuse)
    audio(weights)


def test_other_code_packs_anew(weights: Weights, kept: Path, monkeypatch) -> None:
    audio(weights)
    monkeypatch.setattr(store, "_code", lambda: "another")
    audio(weights)
    assert len(files(kept)) == 2


def test_what_a_killed_writer_left_goes(weights: Weights, kept: Path) -> None:
    kept.mkdir(parents=True)
    for name, age in ((".old.part", 1e4), (".new.part", 0)):
        (kept / name).write_bytes(b"half")
        os.utime(kept / name, (time.time() - age,) * 2)
    audio(weights)
    assert [path.name for path in kept.glob(".*.part")] == [".new.part"]


def test_weights_of_no_file_are_not_kept(kept: Path) -> None:
    audio(random_weights(TINY))
    assert not files(kept)


def test_what_was_used_longest_ago_goes(
    weights: Weights, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio(weights)
    audio(weights, "published")  # the smaller one
    small, large = sorted(path.stat().st_size for path in files(kept))
    for age, path in enumerate(files(kept)):
        os.utime(path, (1e9 - age, 1e9 - age))
    audio(weights)  # used just now
    (older,) = [path for path in files(kept) if path.stat().st_mtime < 1.1e9]
    monkeypatch.setenv("FASTGLOW_CACHE_GB", str((2 * large + small // 2) / 1e9))
    save_safetensors(random_weights(TINY, seed=1), tmp_path / "other")
    audio(load_weights(tmp_path / "other"))
    assert len(files(kept)) == 2
    assert not older.exists()


def test_nothing_is_kept_where_the_user_or_the_disk_says_no(
    weights: Weights, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = SimpleNamespace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(store.shutil, "disk_usage", lambda _: full)
        audio(weights)
    monkeypatch.setenv("FASTGLOW_CACHE_GB", "0")
    audio(weights)
    assert not files(kept)


@pytest.mark.parametrize("text", ["much", "-1", "nan", "1e12"])
def test_a_limit_that_is_no_size_is_refused(
    weights: Weights, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTGLOW_CACHE_GB", text)
    with pytest.raises(EngineError, match="FASTGLOW_CACHE_GB"):
        audio(weights)
