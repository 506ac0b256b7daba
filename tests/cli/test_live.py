"""`fastglow vocode --stream`: mel frames in from a pipe, audio out while they come."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile

from fastglow.checkpoint import save_safetensors
from fastglow.vocoder import Vocoder

from models import TINY, random_input, random_weights

MEL = random_input(TINY, 120)[0][0].astype(np.float32)
FRAMES = np.ascontiguousarray(MEL.T).tobytes()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_safetensors(random_weights(TINY), folder)
    return str(folder)


@pytest.fixture(scope="module")
def expected(model):
    return Vocoder.load(model, device="cpu").synthesize(MEL, seed=3)


def command(model, *options):
    args = ["vocode", "--stream", "-", "-m", model, "--device", "cpu", "--seed", "3", *options]
    return [sys.executable, "-m", "fastglow", *args]


def levels(audio):
    return np.clip(np.rint(audio.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)


def test_raw_samples_are_those_of_the_whole(model, expected):
    run = subprocess.run(command(model, "--format", "raw"), input=FRAMES, capture_output=True)
    assert run.returncode == 0, run.stderr
    assert np.array_equal(np.frombuffer(run.stdout, "<i2"), levels(expected))


def test_denoised_and_matched_it_is_the_whole_s_too(model):
    options = ("--format", "raw", "--denoise", "0.1", "--match-mel", "0.7", "--frames", "16")
    run = subprocess.run(command(model, *options), input=FRAMES, capture_output=True)
    assert run.returncode == 0, run.stderr
    vocoder = Vocoder.load(model, device="cpu")
    expected = vocoder.synthesize(MEL, seed=3, denoise=0.1, match_mel=0.7)
    assert np.array_equal(np.frombuffer(run.stdout, "<i2"), levels(expected))


def test_the_wav_of_a_pipe_can_be_read(model, expected, tmp_path):
    run = subprocess.run(command(model, "--subtype", "FLOAT"), input=FRAMES, capture_output=True)
    assert run.returncode == 0, run.stderr
    (tmp_path / "a.wav").write_bytes(run.stdout)
    audio, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert rate == TINY.sampling_rate
    assert np.array_equal(audio, expected)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_file_from_a_named_pipe(model, expected, tmp_path, name):
    os.mkfifo(tmp_path / "mel")
    args = command(model, "-o", str(tmp_path / name))
    args[args.index("-")] = str(tmp_path / "mel")
    with subprocess.Popen(args) as process:
        (tmp_path / "mel").write_bytes(FRAMES)
        assert process.wait(60) == 0
    assert np.array_equal(soundfile.read(tmp_path / name, dtype="int16")[0], levels(expected))


def test_raw_samples_to_a_file_in_a_new_folder(model, expected, tmp_path):
    target = tmp_path / "new" / "a.raw"
    run = subprocess.run(command(model, "-o", str(target)), input=FRAMES, capture_output=True)
    assert (run.returncode, run.stdout) == (0, b"")
    assert np.array_equal(np.fromfile(target, "<i2"), levels(expected))


def test_what_is_there_and_no_output_is_not_replaced(model, tmp_path):
    (tmp_path / "a.raw").write_bytes(FRAMES)
    os.mkfifo(tmp_path / "b.raw")
    for name, told in (("a.raw", "would overwrite the input"), ("b.raw", "is no file")):
        args = command(model, "-o", str(tmp_path / name))
        args[args.index("-")] = str(tmp_path / "a.raw")
        run = subprocess.run(args, capture_output=True, timeout=60)
        assert (run.returncode, told in run.stderr.decode()) == (2, True)
    assert (tmp_path / "a.raw").read_bytes() == FRAMES
    assert (tmp_path / "b.raw").is_fifo()


def test_a_mel_of_nothing_makes_no_file(model, tmp_path):
    for name in ("a.raw", "a.wav"):
        run = subprocess.run(
            command(model, "-o", str(tmp_path / name)), input=b"", capture_output=True
        )
        assert (run.returncode, b"no samples" in run.stderr) == (2, True)
    assert not os.listdir(tmp_path)


def test_audio_comes_while_the_mel_does(model, expected):
    args = command(model, "--format", "raw", "--frames", "1", "--lookahead", "0")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(args, bufsize=0, **pipes) as process:
        for _ in range(3):
            process.stdin.write(FRAMES[: 4 * len(MEL)])
            heard = b""
            while len(heard) < 2 * TINY.hop_length:
                heard += process.stdout.read(2 * TINY.hop_length - len(heard))
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(60) == 0


def test_a_listener_who_leaves_ends_it_quietly(model):
    args = command(model, "--format", "raw", "--frames", "1", "--lookahead", "0")
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(args, bufsize=0, **pipes) as process:
        process.stdout.close()
        feeding = threading.Thread(target=_feed, args=(process.stdin,))
        feeding.start()
        assert process.wait(60) == 0
        feeding.join()
        assert process.stderr.read() == b""


def _feed(pipe):
    try:
        for _ in range(100):
            pipe.write(FRAMES)
        pipe.close()
    except BrokenPipeError:
        pass


@pytest.mark.parametrize(
    ("mel", "options", "message"),
    [
        (FRAMES[:-1], [], "31 bytes into frame 119; expected float32 frames of 8 numbers"),
        (
            FRAMES[:320] + np.full((9, 8), np.nan, "f4").tobytes(),
            [],
            "standard input: frame 10 holds NaN",
        ),
        (b"\x93NUMPY" + FRAMES, [], "standard input: is a .npy file"),
        (b"", ["a.npy"], "--stream takes one mel"),
        (b"", ["--match-mel", "2"], "--match-mel"),
        (b"", ["--format", "raw", "--subtype", "PCM_8"], "PCM_8"),
        (b"", ["--format", "mp3"], "--format mp3: --stream writes .wav or .raw to"),
        (b"", ["--format", "flac"], "others need --out FILE"),
        (b"", ["-o", "x.mp3"], "x.mp3: --stream writes a file that ends in .wav, .flac, .raw"),
        (b"", ["-o", "x"], "x: --stream writes a file"),
        (b"", ["-o", "x.raw", "--format", "flac"], "name one kind of file"),
        (b"", ["--lookahead", "-1"], "lookahead"),
    ],
)
def test_bad_streams_are_one_line(model, mel, options, message):
    run = subprocess.run(command(model, *options), input=mel, capture_output=True, text=False)
    assert run.returncode == 2
    assert message in run.stderr.decode()
    assert "Traceback" not in run.stderr.decode()


def test_a_file_that_ends_badly_is_not_left(model, tmp_path):
    target = tmp_path / "a.wav"
    run = subprocess.run(command(model, "-o", str(target)), input=FRAMES[:-1], capture_output=True)
    assert run.returncode == 2
    assert not os.listdir(tmp_path)


def test_no_mel_no_audio(model):
    run = subprocess.run(command(model, "--format", "raw"), input=b"", capture_output=True)
    assert (run.returncode, run.stdout) == (0, b"")
