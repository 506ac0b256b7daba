"""Means, intervals and the JSON record."""

import json
import math

import numpy as np
import pytest

from fastglow.evaluate.libraries import versions
from fastglow.evaluate.record import FileScores, Mean, Result, mean_of
from fastglow.evaluate.scores import METRICS


def scores(stoi, peak=0.5):
    return {"voice": {"stoi": stoi, "peak": peak}, "original": {"peak": 0.7}}


@pytest.fixture
def result():
    files = [FileScores("a.wav", 1.0, scores(0.9)), FileScores("b.wav", 2.0, scores(None))]
    return Result("a voice", {"seed": 0}, {"numpy": "2"}, files, ["c.wav: bad"])


def test_the_interval_of_many_files_is_that_of_a_normal_mean():
    values = 3 + 0.5 * np.random.default_rng(1).standard_normal(2000)
    found = mean_of(list(values))
    half = 1.96 * values.std() / math.sqrt(2000)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=half / 20)
    assert found.high == pytest.approx(values.mean() + half, abs=half / 20)


def test_the_interval_of_two_files_is_their_range():
    assert mean_of([1.0, 3.0]) == Mean(2.0, 1.0, 3.0, 2, 0)  # a quarter of the draws at each end


def test_what_has_no_value_is_counted_and_left_out():
    assert mean_of([None, 2.0, None]) == Mean(2.0, None, None, 1, 2)
    assert mean_of([None, None]) == Mean(None, None, None, 0, 2)
    assert mean_of([5.0, None, 5.0]) == Mean(5.0, 5.0, 5.0, 2, 1)


def test_the_summary_is_by_system_and_metric(result):
    assert result.summary["voice"]["stoi"] == Mean(0.9, None, None, 1, 1)
    assert result.summary["original"] == {"peak": Mean(0.7, 0.7, 0.7, 2, 0)}
    assert result.systems == ("voice", "original")
    assert [metric.key for metric in result.metrics] == ["stoi", "peak"]


def test_json_holds_everything_and_the_same_bytes_every_time(result, tmp_path):
    result.write(tmp_path / "a.json")
    result.write(tmp_path / "b.json")
    text = (tmp_path / "a.json").read_bytes()
    assert text == (tmp_path / "b.json").read_bytes()
    data = json.loads(text)
    assert data["format"] == "fastglow evaluate 1"
    assert data["files"][1]["scores"]["voice"]["stoi"] is None
    assert data["summary"]["voice"]["stoi"]["missing"] == 1
    assert data["metrics"]["peak"]["better"] == "as original"
    assert data["failed"] == ["c.wav: bad"]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.json", "b.json"]


def test_versions_are_those_installed_or_unknown():
    found = versions(["numpy", "no-such-package"])
    assert found == {"numpy": np.__version__, "no-such-package": "unknown"}


def test_every_metric_has_its_own_key():
    assert len({metric.key for metric in METRICS}) == len(METRICS)
