"""``fastglow train`` as a user meets it: a tiny model on 20 s of audio."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from fastglow.checkpoint import load_weights

torch = pytest.importorskip("torch")
RATE = 8000

SETTINGS = """
out = "run"
[data]
train = ["recordings"]
validation = ["recordings/held.wav"]
[train]
steps = 60
batch = 4
segment = 1024
learning_rate = 4e-3
warmup = 5
ema = 0.9
[[train.loss.resolutions]]
n_fft = 128
hop = 32
n_mels = 12
[run]
checkpoint_every = 20
validate_every = 30
validation_segments = 4
log_every = 1
tensorboard = false
[model]
n_mel_channels = 12
n_flows = 4
n_early_every = 2
hop_length = 32
upsample_kernel = 128
sampling_rate = 8000
wn = { n_layers = 3, n_channels = 16 }
mel = { n_fft = 128, win_length = 128, fmax = 4000.0 }
"""


def voice(seconds: float, pitch: float, rate: int = RATE) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * pitch * t + 2 * np.sin(2 * np.pi * 5 * t)
    return 0.2 * sum(np.sin(h * phase) / h for h in range(1, 8))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with settings and 20 s of recordings, 4 of them held out."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "t.toml").write_text(SETTINGS)
    (tmp_path / "recordings").mkdir()
    for i in range(4):
        soundfile.write(tmp_path / "recordings" / f"{i}.flac", voice(4, 110 + 30 * i), RATE)
    soundfile.write(tmp_path / "recordings" / "held.wav", voice(4, 150), RATE)
    return tmp_path


@pytest.fixture
def cli(fastglow_command):
    """Runs `fastglow ...`: (status, stdout, stderr)."""
    return fastglow_command


def log(folder, kind):
    lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_a_tiny_voice_is_trained_and_speaks(folder, cli):
    status, out, err = cli("train", "t.toml", "--device", "cpu")
    assert (status, out) == (0, "60 steps -> run/voice\n")
    assert "training: 4 of 4 recordings, 0 h 00 min 16 s at 8000 Hz" in err
    assert "held out: 1 of 1 recordings" in err
    assert "step 60: held-out loss" in err
    losses = [line["loss"] for line in log(folder, "train")]
    assert len(losses) == 60
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    first, last = log(folder, "validation")
    assert last["loss"] < first["loss"]
    data = log(folder, "data")[0]
    assert (data["training"]["used"], data["training"]["seconds"]) == (4, 16.0)
    status, out, err = cli("vocode", "recordings/held.wav", "-m", "run/voice", "--device", "cpu")
    assert status == 0
    audio, rate = soundfile.read("out/held.wav")
    assert (rate, len(audio)) == (RATE, 4 * RATE + 32)
    level = np.sqrt(np.mean(audio[1000:-1000] ** 2))
    recorded = np.sqrt(np.mean(voice(4, 150) ** 2))
    assert 0.5 < level / recorded < 2

    status, out, err = cli("train", "t.toml", "--device", "cpu")  # nothing is left to do
    assert (status, out) == (0, "60 steps -> run/voice\n")
    assert "all 60 steps are done; raise train.steps" in err
    status, out, err = cli("train", "t.toml", "--fresh")
    assert status == 2
    assert "leave out --fresh" in err


def test_the_example_is_printed_and_is_valid(folder, cli):
    status, out, err = cli("train", "--example")
    assert (status, err) == (0, "")
    (folder / "e.toml").write_text(out)
    status, out, err = cli("train", "e.toml", "--check")
    assert (status, out) == (0, "")  # its recordings are those here, resampled
    assert "training: 5 of 5 recordings, 0 h 00 min 20 s at 22050 Hz" in err
    assert "5 resampled from 8000 Hz" in err
    assert not (folder / "runs").exists()


def test_check_reports_and_writes_nothing(folder, cli):
    soundfile.write("recordings/short.wav", voice(0.05, 100), RATE)
    status, out, err = cli("train", "t.toml", "--check")
    assert (status, out) == (0, "")
    assert "training: 4 of 5 recordings" in err
    assert "1 left out, shorter than a segment (0.13 s): " in err
    assert not (folder / "run").exists()
    assert cli("train", "t.toml", "--check", "--quiet") == (0, "", "")


def test_mistakes_are_one_line(folder, cli):
    def fails(*arguments):
        status, out, err = cli("train", *arguments)
        assert (status, out) == (2, "")
        return err.splitlines()[-1]

    assert "name a settings file; `fastglow train --example" in fails()
    assert "none.toml: no such file" in fails("none.toml")
    (folder / "bad.toml").write_text(SETTINGS.replace("warmup", "warm_up"))
    assert "unknown key train.warm_up; did you mean warmup?" in fails("bad.toml")
    (folder / "far.toml").write_text(SETTINGS.replace('"recordings"', '"nowhere"'))
    assert "nowhere: no such file or folder" in fails("far.toml")
    assert "hop 256" in fails("t.toml", "--export-nvidia", "x.pt")
    assert "other hyperparameters than [model]" in fails("t.toml", "--init", "glow-64")
    assert "device 'tpu'" in fails("t.toml", "--device", "tpu")
    for path in (folder / "recordings").glob("*.flac"):
        soundfile.write(path, np.zeros(RATE), RATE)
    line = fails("t.toml")
    assert line.startswith("error: training: none of 4 recordings is usable")
    assert "digital silence" in line
    assert not (folder / "run").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no signal reaches a process there")
def test_interrupted_from_outside_and_taken_up_again(folder, cli):
    slow = SETTINGS.replace("steps = 60", "steps = 4000")
    (folder / "t.toml").write_text(slow)
    program = "from fastglow.cli.main import run; run()"
    arguments = ["train", "t.toml", "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE)
    try:
        wait_for(folder / "run" / "log.jsonl", '"step": 3')
        process.send_signal(signal.SIGTERM)
        err = process.communicate(timeout=60)[1].decode()
    finally:
        process.kill()
    assert process.returncode == 130, err
    state = torch.load(folder / "run" / "state.pt", weights_only=True)
    stopped = state["done"]
    assert 3 <= stopped < 4000
    assert load_weights(folder / "run" / "voice").config.sampling_rate == RATE
    status, out, err = cli(*arguments, "--steps", stopped + 2)
    assert (status, out) == (0, f"{stopped + 2} steps -> run/voice\n")
    assert f"going on from step {stopped} of {stopped + 2}" in err
    assert [line["step"] for line in log(folder, "train")] == list(range(1, stopped + 3))


def wait_for(path, text):
    deadline = time.monotonic() + 60
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline, "the run did not start"
        time.sleep(0.05)


def test_two_processes_and_nvidias_format(folder):
    """As torchrun starts them: only the first writes and speaks."""
    text = SETTINGS.replace("hop_length = 32", "hop_length = 256")
    text = text.replace("upsample_kernel = 128", "upsample_kernel = 1024")
    text = text.replace("n_fft = 128, win_length = 128", "n_fft = 256, win_length = 256")
    (folder / "t.toml").write_text(text.replace("n_flows = 4", "n_flows = 2"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    program = "from fastglow.cli.main import run; run()"
    command = [sys.executable, "-c", program, "train", "t.toml", "--device", "cpu"]
    command += ["--steps", "12", "--export-nvidia", "x.pt"]
    members = []
    for rank in ("0", "1"):
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        place |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        members.append(subprocess.Popen(command, env={**os.environ, **place}, **pipes))
    outputs = [member.communicate(timeout=100) for member in members]
    assert [member.returncode for member in members] == [0, 0], outputs
    assert outputs[0][0] == "12 steps -> run/voice\nwrote x.pt\n"
    assert "step 12: held-out loss" in outputs[0][1]
    assert outputs[1][0] == ""
    assert "held-out" not in outputs[1][1]
    assert len(log(folder, "train")) == 12
    exported, saved = load_weights("x.pt", rate=RATE), load_weights("run/voice")
    for name in saved:
        np.testing.assert_allclose(exported[name], saved[name], atol=1e-6)
