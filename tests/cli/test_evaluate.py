"""``fastglow evaluate`` as a user meets it, on a tiny model."""

import json
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import soundfile

from fastglow.audio import mel_spectrogram, read_audio
from fastglow.checkpoint import save_safetensors
from fastglow.evaluate import libraries
from fastglow.evaluate.scores import Judge
from fastglow.vocoder import Vocoder
from fastglow.voices import FOLDER

from models import TINY, random_weights

for package in ("librosa", "pesq", "pystoi"):
    pytest.importorskip(package)
RATE = TINY.sampling_rate


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_safetensors(random_weights(TINY), folder, dtype="float32")
    return folder


@pytest.fixture
def cli(monkeypatch, tmp_path, fastglow_command):
    """Runs `fastglow evaluate ...` in an empty folder: (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "distillmos", None)
    return partial(fastglow_command, "evaluate")


@pytest.fixture
def recordings(tmp_path):
    wave = read_audio(FOLDER / "demo" / "original.flac")[0]
    folder = tmp_path / "in"
    folder.mkdir()
    soundfile.write(folder / "a.wav", wave[:RATE], RATE)
    soundfile.write(folder / "b.flac", wave[RATE : 2 * RATE], RATE)
    return folder


def test_a_voice_is_scored_shown_written_and_drawn(cli, recordings, model, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ("in", "-m", model, "--device", "cpu", "--seed", 3)
    status, out, err = cli(
        *arguments, "--json", "new/x.json", "--report", "r.html", "--pictures", 1
    )
    assert status == 0
    assert err.count("\n") == 1
    assert "pip install distillmos" in err
    assert "a.wav" in out
    assert "mean over 2 files" in out
    assert "wrote r.html" in out
    assert "tiny: sigma 0.6, denoise 0, mel matching 1 (--match-mel 0" in out
    text = (tmp_path / "new" / "x.json").read_text()
    data = json.loads(text)
    assert [file["file"] for file in data["files"]] == ["a.wav", "b.flac"]
    assert data["settings"]["voice"] == "tiny"
    assert data["settings"]["seed"] == 3
    assert data["settings"]["match_mel"] == 1
    assert set(data["versions"]) == {"fastglow", *libraries.METRICS}
    assert set(data["summary"]) == {"voice", "griffin_lim", "original"}
    assert data["summary"]["griffin_lim"]["stoi"]["mean"] > data["summary"]["voice"]["stoi"]["mean"]
    assert "mos" not in data["metrics"]
    assert str(tmp_path) not in text
    page = (tmp_path / "r.html").read_text()
    assert page.count("data:image/png") == 2
    status, again, _ = cli(*arguments, "--json", "y.json")
    assert status == 0
    assert (tmp_path / "y.json").read_text() == text
    assert out.startswith(again[: again.index("wrote")])
    cli(*arguments[:-1], 4, "--no-baseline", "--json", "z.json")
    other = json.loads((tmp_path / "z.json").read_text())
    assert set(other["summary"]) == {"voice", "original"}
    assert other["files"][0]["scores"]["voice"] != data["files"][0]["scores"]["voice"]
    assert other["files"][0]["scores"]["original"] == data["files"][0]["scores"]["original"]


def test_what_is_scored_is_what_the_python_interface_gives(cli, recordings, model, tmp_path):
    arguments = (
        "--sigma",
        0.5,
        "--seed",
        7,
        "--denoise",
        0.05,
        "--match-mel",
        0.7,
        "--no-baseline",
        "--json",
        "x.json",
    )
    assert cli("in/a.wav", "-m", model, *arguments, "--device", "cpu", "-q")[0] == 0
    vocoder = Vocoder.load(model, device="cpu")
    wave, rate = read_audio(recordings / "a.wav")
    mel = mel_spectrogram(wave, rate, config=vocoder.config)
    audio = vocoder.synthesize(mel, sigma=0.5, seed=7, denoise=0.05, match_mel=0.7)
    found = json.loads((tmp_path / "x.json").read_text())["files"][0]["scores"]["voice"]
    assert found == pytest.approx(Judge(wave, vocoder.config).against(audio), abs=1e-5)


def test_a_model_that_cannot_be_matched(cli, recordings, tmp_path):
    wide = replace(TINY, hop_length=512, upsample_kernel=1024)
    save_safetensors(random_weights(wide), tmp_path / "wide", dtype="float32")
    status, out, _ = cli("in/a.wav", "-m", "wide", "--no-baseline")
    assert status == 0
    assert "mel matching 0" in out
    status, out, err = cli("in/a.wav", "in/b.flac", "-m", "wide", "--match-mel", 1)
    assert (status, out) == (2, "")
    assert err.count("three hops") == 1


def test_files_of_another_vocoder_are_judged_by_the_same_yardstick(cli, recordings, tmp_path):
    arguments = ("in", "--generated", "in", "--no-baseline", "--json", "x.json", "--quiet")
    assert cli("in/a.wav", "in/b.flac", *arguments[1:]) == (0, "", "")
    data = json.loads((tmp_path / "x.json").read_text())
    assert data["settings"]["voice"] == "in"
    for file in data["files"]:
        assert file["scores"]["voice"]["log_mel_l1"] == 0
        assert file["scores"]["voice"]["stoi"] == pytest.approx(1, abs=1e-5)
    (recordings / "b.flac").rename(tmp_path / "b.flac")
    status, out, err = cli("in/a.wav", "b.flac", "--generated", "in", "--no-baseline")
    assert status == 2
    assert "mean over 1 file " in out
    assert "no generated file" in err
    assert "b.flac" in err


def test_what_cannot_be_read_is_told_at_the_end_and_the_rest_is_done(
    cli, recordings, model, tmp_path
):
    (recordings / "0.wav").write_bytes(b"nothing")
    arguments = ("in", "none.wav", "-m", model, "--no-baseline", "--json", "x.json")
    status, out, err = cli(*arguments)
    assert status == 2
    assert "mean over 2 files" in out
    assert [line.split(":")[0] for line in err.splitlines()] == ["note", "error", "error"]
    data = json.loads((tmp_path / "x.json").read_text())
    assert len(data["failed"]) == 2
    assert len(data["files"]) == 2
    status, out, err = cli("none.wav", "in/0.wav", "--report", "r.html", "-m", model)
    assert (status, out) == (2, "")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.filterwarnings("error")
def test_short_and_silent_files_have_no_figures_where_there_are_none(cli, model, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.full(900, 0.1), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    status, out, _ = cli("short.wav", "silent.wav", "-m", model, "--json", "x.json")
    assert status == 0
    assert "n/a (2 n/a)" in out
    data = json.loads((tmp_path / "x.json").read_text())
    for file in data["files"]:
        assert file["scores"]["voice"]["pesq_wb"] is None
        assert file["scores"]["voice"]["stoi"] is None
        assert file["scores"]["voice"]["log_mel_l1"] > 0
    assert data["summary"]["voice"]["stoi"]["missing"] == 2


def test_a_mos_predictor_adds_its_column(cli, recordings, model, monkeypatch, tmp_path):
    found = (lambda wave, rate: 1 + float(np.abs(wave).max())), ""
    monkeypatch.setattr("fastglow.evaluate.levels.find_mos_predictor", lambda: found)
    status, out, err = cli("in/a.wav", "-m", model, "--json", "x.json", "--no-baseline")
    assert (status, err) == (0, "")
    assert " MOS " in out
    data = json.loads((tmp_path / "x.json").read_text())
    scores = data["files"][0]["scores"]["original"]
    assert scores["mos"] == pytest.approx(1 + scores["peak"])
    assert "torch" in data["versions"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "nothing to do"),
        (["none"], "none"),
        (["in/x.txt"], "x.txt"),
        (["in", "--generated", "air"], "air"),
        (["in", "--report", "r.pdf"], "r.pdf"),
        (["in", "--json", "in"], "is a folder"),
        (["in", "--model", "none.pt"], "none.pt"),
        (["in", "--device", "abacus"], "abacus"),
        (["in", "--precision", "fp3"], "fp3"),
        (["in", "--sigma", "-1"], "--sigma"),
        (["in", "--denoise", "200"], "denoise=200"),
        (["in", "--match-mel", "-1"], "--match-mel"),
        (["in", "--pictures", "-1"], "--pictures"),
        (["in", "--seed", "-1"], "--seed"),
    ],
)
def test_bad_arguments_end_with_status_2_and_say_which(cli, recordings, arguments, word):
    (recordings / "x.txt").touch()
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    assert word in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("pesq", []), ("pystoi", []), ("librosa", []), ("matplotlib", ["--report", "r.html"])],
)
def test_what_is_not_installed_is_said_with_its_mend(
    cli, recordings, monkeypatch, module, arguments
):
    monkeypatch.setitem(sys.modules, module, None)
    status, _, err = cli("in", *arguments)
    assert status == 2
    assert err.count("\n") == 1
    assert module in err
    assert "pip install 'fastglow[evaluate]'" in err


def test_help_has_examples_and_explains_the_metrics(cli):
    status, out, _ = cli("--help")
    assert status == 0
    assert "--generated out/" in out
    assert "distillmos" in out
