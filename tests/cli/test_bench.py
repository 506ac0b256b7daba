"""``fastglow bench`` as a user meets it, on a tiny model."""

import importlib.util
import json
from functools import partial

import pytest

from fastglow.checkpoint import save_safetensors

from models import TINY, random_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-model")
    save_safetensors(random_weights(TINY), folder, dtype="float32")
    return folder


@pytest.fixture
def cli(monkeypatch, tmp_path, fastglow_command):
    """Runs `fastglow bench ...` in an empty folder: (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fastglow.bench.rounds.MOST", 1)
    monkeypatch.setattr("fastglow.bench.devices.CPU_SIZE", 128)
    return partial(fastglow_command, "bench")


def test_a_sweep_is_measured_shown_written_and_drawn(cli, model, tmp_path):
    arguments = ("--model", model, "--device", "cpu", "--seconds", "0.1,0.3", "--batch", "1,2")
    status, out, err = cli(
        *arguments, "--peers", "pytorch", "--runs", 1, "--json", "new/x.json", "--plot", "x.png"
    )
    assert (status, err) == (0, "")
    assert out.count("PyTorch") == 4
    assert "16 channels, batch 2, 0.30 s of audio (26 frames)" in out
    assert "wrote x.png" in out
    text = (tmp_path / "new" / "x.json").read_text()
    data = json.loads(text)
    assert data["device"] == "cpu"
    assert [(case["batch"], case["frames"]) for case in data["cases"]] == [
        (1, 9),
        (1, 26),
        (2, 9),
        (2, 26),
    ]
    rows = [row for case in data["cases"] for row in case["rows"]]
    assert all(row["refused"] is None and row["speed"]["p50"] > 0 for row in rows)
    assert str(tmp_path) not in text
    assert model.parent.name not in text
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
    status, again, _ = cli("--from", "new/x.json", "--plot", "y.png")
    assert status == 0
    assert again.splitlines()[0] in out
    assert (tmp_path / "y.png").exists()


def test_a_folder_gets_a_file_under_the_machines_name(cli, model, tmp_path):
    (tmp_path / "results").mkdir()
    arguments = ("-m", model, "--device", "cpu", "--seconds", 0.1, "--peers", "none", "--runs", 1)
    status, out, _ = cli(*arguments, "--json", "results", "--kernels")
    assert status == 0
    (path,) = (tmp_path / "results").iterdir()
    assert path.name.startswith("cpu-fp32-16ch-")
    assert path.name in out.replace("\n", "")
    assert "PyTorch" not in out


def test_a_wrong_engine_ends_with_status_1_and_no_speed(cli, model, monkeypatch):
    from fastglow.engines.cpu import CpuEngine

    right = CpuEngine.infer
    monkeypatch.setattr(CpuEngine, "infer", lambda *a, **k: 1.001 * right(*a, **k))
    arguments = ("-m", model, "--device", "cpu", "--seconds", 0.1, "--peers", "none", "--runs", 1)
    status, out, err = cli(*arguments)
    assert status == 1
    assert "is over" in err
    assert "fastglow fp32 has no speed" in out
    (line,) = (line for line in out.splitlines() if line.strip().startswith("fastglow  "))
    assert line.split()[3:12] == ["–"] * 9


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--peers", "abacus"], "abacus"),
        (["--peers", "compile"], "no such peer on cpu"),
        (["--device", "abacus"], "abacus"),
        (["--precision", "fp3"], "fp3"),
        (["--precision", "fp16"], "fp32, bf16"),
        (["--seconds", "one"], "--seconds one"),
        (["--seconds", "0"], "--seconds 0"),
        (["--seconds", "1,,2"], "--seconds 1,,2"),
        (["--seconds", "nan"], "--seconds nan"),
        (["--batch", "0"], "--batch 0"),
        (["--batch", "1.5"], "--batch 1.5"),
        (["--channels", "0"], "--channels 0"),
        (["--channels", "64", "--model", "glow-64"], "leave it out"),
        (["--conditioning", "air"], "air"),
        (["--model", "none.pt"], "none.pt"),
        (["--runs", "0"], "--runs"),
        (["--threads", "0"], "threads"),
        (["--plot", "x.jpg"], "x.jpg"),
        (["--from", "none.json"], "none.json"),
    ],
)
def test_bad_arguments_end_with_status_2_and_say_which(cli, tmp_path, arguments, word):
    if "--device" not in arguments:
        arguments = ["--device", "cpu", *arguments]
    if "--peers" not in arguments:
        arguments = ["--peers", "none", *arguments]
    status, _, err = cli(*arguments)
    assert status == 2
    assert word in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_no_gpu_ends_with_status_2(cli, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, _, err = cli("--device", "cuda")
    assert status == 2
    assert "nvidia-smi" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [("torch", [], "bench"), ("matplotlib", ["--plot", "x.png"], "plot")],
)
def test_what_is_not_installed_is_said_with_its_mend(cli, monkeypatch, module, arguments, extra):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == module else real(name, *a)
    )
    status, _, err = cli("--peers", "none", *arguments)
    assert status == 2
    assert f"pip install 'fastglow[{extra}]'" in err


def test_help_has_examples_and_explains_the_columns(cli):
    status, out, _ = cli("--help")
    assert status == 0
    assert "fastglow bench --peers none" in out
    assert "× best peer" in out
