"""`fastglow scaling`: what journals say of speed and workers."""

import json

import numpy as np
import pytest

from fastglow.bench.scaling import CorpusRun, efficiency, read_runs
from fastglow.checkpoint import save_safetensors
from fastglow.errors import InputError

from models import TINY, random_weights


def test_runs_of_one_and_two_workers(tmp_path, fastglow_command):
    save_safetensors(random_weights(TINY), tmp_path / "model", dtype="float32")
    (tmp_path / "mels").mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        mel = rng.uniform(-9, 0, (TINY.n_mel_channels, 40)).astype(np.float32)
        np.save(tmp_path / "mels" / f"{i}.npy", mel)
    journals = []
    for device in ("cpu", "cpu,cpu"):
        journals.append(tmp_path / f"{device.count('cpu')}.jsonl")
        status, _, err = fastglow_command(
            "vocode", tmp_path / "mels", "-m", tmp_path / "model", "-o", tmp_path / device,
            "--journal", journals[-1], "--device", device, "--threads", 1, "--quiet",
        )  # fmt: skip
        assert status == 0, err
    status, out, _ = fastglow_command("scaling", *journals, "--plot", tmp_path / "p" / "s.png")
    assert status == 0
    assert "1.jsonl" in out
    assert "1.00" in out
    assert (tmp_path / "p" / "s.png").read_bytes().startswith(b"\x89PNG")
    one, two = (read_runs(path)[0] for path in journals)
    assert one.workers == 1
    assert two.workers in (1, 2)  # one may have done all before the other asked
    assert one.hours == pytest.approx(8 * 40 * TINY.hop_length / TINY.sampling_rate / 3600, 1e-2)


def test_scaling_is_speed_a_worker_over_that_of_the_fewest():
    def run(what, workers, speed):
        return CorpusRun("j", what, workers, 1.0, 1.0, speed, 1.0)

    runs = [run("a", 2, 10.0), run("a", 2, 14.0), run("a", 4, 18.0), run("b", 1, 100.0)]
    assert [efficiency(each, runs) for each in runs] == pytest.approx([10 / 12, 14 / 12, 0.75, 1])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no journal"),
        ("speech\n", "no journal"),
        ("[]\n", "no journal"),
        ('{"journal": 1}\n', "no journal"),
        ('{"voice": "v", "device": "cpu", "precision": "fp32"}\n{"run": 3}\n', "no journal"),
        ('{"voice": "v", "device": "cpu", "precision": "fp32"}\n', "no run"),
    ],
)
def test_what_is_no_journal_is_one_clear_error(tmp_path, fastglow_command, text, found):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    status, _, err = fastglow_command("scaling", path)
    assert status == 2
    assert err.startswith(f"error: {path}: ")
    assert found in err


def test_a_run_that_did_nothing_has_no_speed(tmp_path):
    path = tmp_path / "a.jsonl"
    totals = {"audio_seconds": 0.0, "wall_seconds": 0.0, "busy": {}}
    settings = {"voice": "v", "device": "cpu", "precision": "fp32"}
    path.write_text(f"{json.dumps(settings)}\n{json.dumps({'run': totals})}\n")
    with pytest.raises(InputError, match="no run"):
        read_runs(path)
