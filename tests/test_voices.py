"""The voice in the box: it is whole, it speaks, and the wheel carries it."""

import json
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import torch

import fastglow
from fastglow import voices
from fastglow.audio import read_audio, read_mel
from fastglow.evaluate.metrics import log_mel_l1, mcd
from fastglow.noise import normal
from fastglow.reference import WaveGlow

from models import relative_error

ROOT = Path(__file__).parents[1]
DEMO = voices.FOLDER / "demo"


@pytest.fixture(scope="module")
def vocoder():
    return fastglow.Vocoder.load()


@pytest.fixture(scope="module")
def mel(vocoder):
    return read_mel(DEMO / "mel.npy", vocoder.config)


def test_each_voice_has_a_card_and_stays_small():
    assert voices.names()[0] == voices.DEFAULT
    for name in voices.names():
        folder = voices.find_voice(name)
        card = (folder / "MODEL_CARD.md").read_text()
        assert all(word in card for word in ("Licence", "Data", "PESQ"))
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 36_000_000
        assert "/" not in json.loads((folder / "config.json").read_text())["provenance"]["path"]


def test_the_default_voice_is_found_by_name_and_without(vocoder):
    named = fastglow.Vocoder.load(voices.DEFAULT)
    assert named.weights.provenance.sha256 == vocoder.weights.provenance.sha256


def test_it_is_as_near_to_float64_as_pytorch_is_in_float32(vocoder, mel):
    """In the median of five pieces: in one alone PyTorch's error varies threefold with threads."""
    ours, theirs = [], []
    for start in range(0, 300, 60):
        piece = mel[:, start : start + 60]
        z = normal(0, vocoder.config.samples(60))
        expected, single = (
            published(vocoder.weights, piece, z, dtype) for dtype in (torch.float64, torch.float32)
        )
        found = vocoder.synthesize(piece, noise=z)
        assert relative_error(found, expected) <= 2e-5
        size = np.linalg.norm(expected)
        ours.append(np.linalg.norm(found - expected) / size)
        theirs.append(np.linalg.norm(single - expected) / size)
    assert np.median(ours) <= 2 * np.median(theirs)


def published(weights, mel, noise, dtype):
    network = WaveGlow.from_weights(weights, dtype)
    with torch.inference_mode():
        audio = network.infer(
            torch.tensor(mel)[None].to(dtype), torch.tensor(noise)[None].to(dtype), 0.6
        )
    return audio[0].numpy()


def test_it_is_a_density_model_and_its_own_inverse_in_fp32(vocoder):
    """Latents of speech it has not heard are near the prior's scale, and lead back to the audio."""
    wave, _ = read_audio(DEMO / "original.flac")
    samples = 2 * 22016  # 172 frames, 2 s
    audio = torch.tensor(wave[None, :samples])
    mel = fastglow.mel_spectrogram(wave[:samples], vocoder.sampling_rate)
    network = WaveGlow.from_weights(vocoder.weights, torch.float32)
    with torch.inference_mode():
        given = torch.tensor(mel)[None, :, : samples // vocoder.config.hop_length]
        latents = network(audio, given).z
        again = network.infer(given, latents)
    assert 0.5 < latents.std() < 1.5
    assert (again - audio).norm() <= 1e-5 * audio.norm()


def test_it_speaks(vocoder, mel):
    """What comes out has the mel that went in; whispering noise of that level is 0.8 away."""
    audio = vocoder.synthesize(mel)
    again = fastglow.mel_spectrogram(audio, vocoder.sampling_rate)[:, : mel.shape[1]]
    assert np.abs(again - mel).mean() < 0.3
    original, _ = read_audio(DEMO / "original.flac")
    level = np.sqrt((audio**2).mean()) / np.sqrt((original**2).mean())
    assert 0.8 < level < 1.25


def test_matched_to_its_mel_it_is_nearer_to_the_recording_too(vocoder, mel):
    original, rate = read_audio(DEMO / "original.flac")
    plain, matched = (vocoder.synthesize(mel, match_mel=m)[: original.size] for m in (0.0, 1.0))
    for distance in (log_mel_l1, mcd):
        reference = vocoder.config if distance is log_mel_l1 else rate
        assert distance(original, matched, reference) < 0.75 * distance(original, plain, reference)


def test_the_demo_mel_is_that_of_the_demo_clip(mel):
    wave, rate = read_audio(DEMO / "original.flac")
    assert np.abs(fastglow.mel_spectrogram(wave, rate) - mel).max() < 1e-4


@pytest.mark.slow
def test_the_wheel_carries_the_voice_and_speaks_in_an_empty_environment(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "-o", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", wheel], check=True)
    np.save(tmp_path / "a.npy", np.random.default_rng(0).uniform(-9, 0, (80, 20)).astype("f4"))
    command = [tmp_path / "env" / "bin" / "fastglow", "vocode", "a.npy", "-o", "a.wav"]
    subprocess.run(command, check=True, cwd=tmp_path)
    audio, rate = read_audio(tmp_path / "a.wav")
    assert (len(audio), rate) == (20 * 256, 22050)
    assert np.abs(audio).max() > 0
