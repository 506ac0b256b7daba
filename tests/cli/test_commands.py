"""The command line as a user meets it: results, one-line errors, exit status 2."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from fastglow.audio import mel_spectrogram, read_audio
from fastglow.checkpoint import load_weights, save_safetensors
from fastglow.vocoder import Vocoder

from models import TINY, random_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_safetensors(random_weights(TINY), folder, dtype="float32")
    return folder


@pytest.fixture
def cli(monkeypatch, tmp_path, fastglow_command):
    """Runs `fastglow ...` in an empty folder: (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    return fastglow_command


@pytest.fixture
def mel(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, quiet_mel(30))
    return path


def quiet_mel(frames, seed=0):
    """Something in the range of natural-log mels."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(-9, 0, (TINY.n_mel_channels, frames))).astype(np.float32)


def test_vocode_writes_what_the_python_interface_gives(cli, mel, model, tmp_path):
    status, out, _ = cli("vocode", mel, "-o", "x.flac", "-m", model, "--seed", 7, "--sigma", 0.5)
    assert status == 0
    assert "1 file, " in out
    assert "RTF" in out
    audio, rate = soundfile.read(tmp_path / "x.flac", dtype="int16")
    expected = Vocoder.load(model).synthesize(np.load(mel), sigma=0.5, seed=7)
    assert rate == TINY.sampling_rate
    assert np.abs(audio / 32768 - np.clip(expected, -1, 1)).max() <= 1 / 32768


def test_vocode_takes_every_kind_of_mel_folders_lists_and_audio(cli, model, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.numpy import save_file

    array = quiet_mel(12)
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    np.save(folder / "a.npy", array)
    np.savez(folder / "b.npz", mel=array)
    torch.save(torch.tensor(array), folder / "c.pt")
    save_file({"mel": array[None]}, folder / "d.safetensors")
    status, _, _ = cli("vocode", "in", "-o", "out", "-m", model)
    assert status == 0
    wavs = sorted((tmp_path / "out" / "deep").glob("*.wav"))
    assert [p.stem for p in wavs] == ["a", "b", "c", "d"]
    assert len({p.read_bytes() for p in wavs}) == 1  # one mel, one seed, one sound

    (tmp_path / "files.txt").write_text("in/deep/a.npy|some text\n# not this\n\nin/deep/b.npz\n")
    assert cli("vocode", "--list", "files.txt", "-o", "listed", "-m", model)[0] == 0
    assert sorted(p.name for p in (tmp_path / "listed").iterdir()) == ["a.wav", "b.wav"]

    assert cli("vocode", "out/deep/a.wav", "-o", "again", "-m", model)[0] == 0
    copy, original = (soundfile.info(tmp_path / p) for p in ("again/a.wav", "out/deep/a.wav"))
    assert copy.frames == original.frames + TINY.hop_length  # samples // hop + 1 frames


def test_skip_existing_leaves_files_alone(cli, mel, model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.wav").write_bytes(b"mine")
    _, out, _ = cli("vocode", mel, "-o", "out", "-m", model, "--skip-existing")
    assert (tmp_path / "out" / "a.wav").read_bytes() == b"mine"
    assert "1 skipped" in out


def test_one_bad_file_does_not_stop_the_others(cli, mel, model, tmp_path):
    (tmp_path / "b.npy").write_bytes(b"not a mel")
    status, out, err = cli("vocode", "b.npy", mel, "-o", "out", "-m", model)
    assert status == 2
    assert err.count("\n") == 1 or err.count("error:") == 1
    assert "b.npy" in err
    assert "1 failed" in out
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.wav"]


def bad_mel(name):
    good = quiet_mel(10)
    nan = good.copy()
    nan[2, 3] = np.nan
    return {
        "nan": nan,
        "empty": good[:, :0],
        "transposed": good.T,
        "bands": good[:5],
        "batch": np.stack([good, good]),
        "integers": good.astype(np.int32),
        "complex": good.astype(np.complex64),
        "scalar": np.float32(1),
        "strings": np.array([["a", "b"]]),
    }[name]


@pytest.mark.parametrize(
    "name",
    ["nan", "empty", "transposed", "bands", "batch", "integers", "complex", "scalar", "strings"],
)
def test_a_bad_mel_is_one_clear_line_and_no_file(cli, model, tmp_path, name):
    np.save(tmp_path / "bad.npy", bad_mel(name))
    status, _, err = cli("vocode", "bad.npy", "-o", "out", "-m", model)
    assert status == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "bad.npy" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["vocode"], "nothing to do"),
        (["vocode", "none.npy"], "none.npy"),
        (["vocode", "a.npy", "-m", "none.pt"], "none.pt"),
        (["vocode", "a.npy", "--mel-scale", "furlong"], "furlong"),
        (["vocode", "a.npy", "--device", "abacus"], "abacus"),
        (["vocode", "a.npy", "--precision", "fp3"], "fp3"),
        (["vocode", "a.npy", "--conditioning", "air"], "air"),
        (["vocode", "a.npy", "--format", "mp3"], "mp3"),
        (["vocode", "a.npy", "--subtype", "PCM_3"], "PCM_3"),
        (["vocode", "a.npy", "--list", "none.txt"], "none.txt"),
        (["vocode", "a.npy", "--sigma", "-1"], "sigma"),
        (["vocode", "a.npy", "--sigma", "nan"], "sigma"),
        (["vocode", "a.npy", "--seed", "18446744073709551616"], "seed"),
        (["vocode", "a.npy", "--threads", "0"], "threads"),
        (["vocode", "a.npy", "a.npy"], "a.npy"),
        (["mel", "a.npy"], "a.npy"),
        (["convert", "none.pt", "-o", "x"], "none.pt"),
        (["convert", "glow-64", "-o", "x", "--to", "onnx"], "onnx"),
        (["info", "none"], "none"),
        (["doctor", "none.npy"], "none.npy"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_bad_arguments_end_with_status_2_and_say_which(cli, mel, model, tmp_path, arguments, word):
    if arguments[0] == "vocode" and "-m" not in arguments:
        arguments = [*arguments, "-m", model]
    before = sorted(tmp_path.iterdir())
    status, _, err = cli(*arguments)
    assert status == 2
    assert word in err
    assert "Traceback" not in err
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_line_of_a_list_does_not_stop_the_others(cli, mel, model, tmp_path):
    (tmp_path / "files.txt").write_bytes("\ufeffa.npy\ngone.npy\n".encode())
    status, out, err = cli("vocode", "--list", "files.txt", "-o", "out", "-m", model)
    assert status == 2
    assert "gone.npy" in err
    assert "1 failed" in out
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.wav"]


def test_a_second_run_does_not_take_outputs_for_inputs(cli, mel, model, tmp_path):
    for _ in range(2):
        assert cli("vocode", ".", "-m", model)[0] == 0
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*"))
    assert files == ["a.npy", "out/a.wav"]


def test_resuming_into_the_folder_of_the_inputs(cli, mel, model, tmp_path):
    (tmp_path / "in").mkdir()
    for name in "ab":
        np.save(tmp_path / "in" / f"{name}.npy", quiet_mel(5))
    assert cli("vocode", "in", "-o", "in", "-m", model)[0] == 0
    status, out, _ = cli("vocode", "in", "-o", "in", "-m", model, "--skip-existing")
    assert status == 0
    assert "2 skipped" in out


def test_an_output_that_cannot_be_written_is_said_before_the_work(cli, mel, model, tmp_path):
    (tmp_path / "file").write_text("mine")
    np.save(tmp_path / "b.npy", quiet_mel(5))
    for out in ("file", "file/deeper", "x.wav"):
        status, _, err = cli("vocode", mel, "b.npy", "-o", out, "-m", model)
        assert status == 2
        assert "folder" in err
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "x.wav").exists()


def test_doctor_looks_at_files_of_one_name(cli, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "m.npy", np.zeros((7, 9), np.float32))
    status, out, _ = cli("doctor", "a/m.npy", "b/m.npy")
    assert status == 1
    assert out.count("m.npy") >= 2


def test_a_mel_that_says_nothing_is_refused(cli, model, tmp_path):
    np.save(tmp_path / "c.npy", np.full((TINY.n_mel_channels, 30), 1e30, np.float32))
    status, _, err = cli("vocode", "c.npy", "-o", "out", "-m", model)
    assert status == 2
    assert "c.npy" in err
    assert not (tmp_path / "out").exists()


def test_two_inputs_for_one_output_are_refused(cli, mel, model, tmp_path):
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b" / "a.npy", quiet_mel(5))
    status, _, err = cli("vocode", "a.npy", "b/a.npy", "-o", "out", "-m", model)
    assert status == 2
    assert "both be written" in err


def test_convert_and_info(cli, model, tmp_path):
    assert cli("convert", model, "-o", "half", "--dtype", "float16")[0] == 0
    assert cli("convert", "half", "-o", "loose", "--to", "npy")[0] == 0
    half, loose = load_weights(tmp_path / "half"), load_weights(tmp_path / "loose", rate=22050)
    assert all(np.array_equal(half[name], loose[name]) for name in half)
    status, out, _ = cli("info", "half", "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["config"] == TINY.to_dict()
    assert facts["parameters"] == sum(half[name].size for name in half)
    assert len(facts["sha256"]) == 64
    assert "flop_per_sample" in cli("info", "half")[1]


def test_mel_and_doctor(cli, tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", 0.1 * rng.standard_normal(48000), 48000)
    assert cli("mel", "a.wav", "-o", "m")[0] == 0
    mel = np.load(tmp_path / "m" / "a.npy")
    assert mel.shape == (80, 22050 // 256 + 1)
    np.save(tmp_path / "t.npy", mel.T)
    status, out, _ = cli("doctor", "t.npy")
    assert status == 1
    assert "transposed" in out


def test_mel_ends_with_one_error_where_nothing_more_can_be_written(cli, tmp_path, monkeypatch):
    for i in range(5):
        soundfile.write(tmp_path / f"{i}.wav", np.full(3000, 0.1), 22050)
    room, move = iter(range(2)), os.replace

    def full(source, target):
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        move(source, target)

    monkeypatch.setattr("fastglow.atomic.os.replace", full)
    status, _, err = cli("mel", ".", "-o", "mels")
    assert (status, err.count("error: ")) == (2, 1)
    assert "what was written before is whole" in err
    assert sorted(p.name for p in (tmp_path / "mels").iterdir()) == ["0.npy", "1.npy"]


def test_full_scale_is_clipped_counted_and_said(cli, mel, model, tmp_path):
    status, out, err = cli("vocode", mel, "-o", "x.wav", "-m", model, "--sigma", 50)
    audio = soundfile.read(tmp_path / "x.wav")[0]
    expected = Vocoder.load(model).synthesize(np.load(mel), sigma=50)
    assert status == 0
    assert np.abs(expected).max() > 1
    assert "clipped" in err
    assert f"{np.count_nonzero(np.abs(expected) > 1)} samples" in out
    assert (np.sign(audio) == np.sign(expected))[np.abs(expected) > 1].all()  # never wrapped


def write_speech_and_its_mel(folder, config):
    """a.wav and m.npy."""
    rng = np.random.default_rng(0)
    soundfile.write(folder / "a.wav", 0.1 * rng.standard_normal(22050), 22050, subtype="FLOAT")
    wave, rate = read_audio(folder / "a.wav")
    np.save(folder / "m.npy", mel_spectrogram(wave, rate, config=config))


def test_audio_is_matched_to_its_mel_and_mels_are_not_unless_asked(cli, model, tmp_path):
    write_speech_and_its_mel(tmp_path, TINY)

    def heard(source, *options):
        assert cli("vocode", source, "-o", "x.wav", "-m", model, *options)[0] == 0
        return soundfile.read(tmp_path / "x.wav", dtype="int16")[0]

    plain, matched = heard("m.npy"), heard("a.wav")
    assert np.array_equal(heard("m.npy", "--match-mel", 1), matched)
    assert np.array_equal(heard("a.wav", "--match-mel", 0), plain)
    assert np.abs(matched.astype(float) - plain).max() > 100


def test_a_model_that_cannot_be_matched_speaks_from_audio_all_the_same(cli, tmp_path):
    wide = replace(TINY, hop_length=512, upsample_kernel=1024)
    save_safetensors(random_weights(wide), tmp_path / "wide", dtype="float32")
    write_speech_and_its_mel(tmp_path, wide)
    for source in ("a.wav", "m.npy"):
        assert cli("vocode", source, "-o", "out", "-m", "wide")[0] == 0
    found = [(tmp_path / "out" / name).read_bytes() for name in ("a.wav", "m.wav")]
    assert found[0] == found[1]
    status, _, err = cli("vocode", "a.wav", "-o", "out", "-m", "wide", "--match-mel", 1)
    assert status == 2
    assert "three hops" in err


def test_help_shows_brackets_and_indents_examples(fastglow_command):
    assert "  mel    [batch, n_mel, frames], natural" in fastglow_command("export", "onnx", "-h")[1]
    assert "\n   fastglow scaling one.jsonl" in fastglow_command("scaling", "-h")[1]


def test_help_is_fast_and_imports_nothing_heavy():
    code = (
        "import sys, time; began = time.process_time()\n"
        "from fastglow.cli import main; sys.argv = ['fastglow', '--help']\n"
        "try: main.run()\n"
        "except SystemExit: pass\n"
        "spent = time.process_time() - began\n"
        "heavy = {'torch', 'scipy', 'matplotlib', 'llvmlite', 'numpy', 'soundfile', 'librosa'}\n"
        "print(spent, sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    assert "vocode" in runs[0].stdout
    _, heavy = runs[0].stderr.split(" ", 1)
    assert heavy.strip() == "[]"
    assert min(float(run.stderr.split(" ", 1)[0]) for run in runs) < 0.4


def test_the_package_imports_no_torch_scipy_or_matplotlib():
    code = (
        "import sys, fastglow; fastglow.Vocoder; fastglow.mel_spectrogram\n"
        "assert set(fastglow.__all__) <= set(dir(fastglow))\n"
        "import fastglow.engines.cpu\n"
        "print(sorted({'torch', 'scipy', 'matplotlib', 'librosa'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command", ["vocode", "bench", "evaluate", "train", "doctor", "export onnx"]
)
def test_help_fills_the_terminal(command, monkeypatch, fastglow_command):
    """Paragraphs are wrapped for the reader's width, not the source's."""
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = fastglow_command(*command.split(), "--help")
    assert status == 0
    prose = [line.strip() for line in out.splitlines() if not line.startswith(tuple("╭│╰"))]
    full = [(a, b) for a, b in pairwise(prose) if a and b]
    assert full or command == "export onnx"
    for line, after in full:
        assert len(line) + 1 + len(after.split()[0]) > 72, line
