"""Mels too long to be held: computed and written part by part, the same files."""

import os
from dataclasses import replace

import numpy as np
import pytest

from fastglow import job as job_module
from fastglow import long as long_module
from fastglow.audio import write_audio
from fastglow.checkpoint import save_safetensors
from fastglow.config import WNConfig
from fastglow.errors import InputError, OutputError
from fastglow.job import Recipe, Task
from fastglow.vocoder import Vocoder

from models import TINY, random_input, random_weights

CONFIG = replace(TINY, n_flows=3, wn=WNConfig(n_layers=5, n_channels=8))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_safetensors(random_weights(CONFIG), folder)
    return str(folder)


def vocoded(recipe, source, target):
    warnings = []
    outcomes = list(recipe.load().run([Task(source, target)], warnings.append))
    assert len(outcomes) == 1
    return outcomes[0]


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize("scale", ["ln", "log10"])
@pytest.mark.parametrize("frames", [41, 64, 333])
@pytest.mark.parametrize("manner", [{}, {"denoise": 0.1, "match_mel": 1.0}])
def test_the_same_file(tmp_path, monkeypatch, model, manner, frames, scale, subtype):
    mel = random_input(CONFIG, frames)[0][0].astype(np.float32)
    np.save(tmp_path / "a.npy", mel)
    recipe = Recipe(model, device="cpu", mel_scale=scale, subtype=subtype, seed=7, **manner)
    whole = vocoded(recipe, tmp_path / "a.npy", tmp_path / "whole.wav")
    monkeypatch.setattr(job_module, "LONG", 40)
    monkeypatch.setattr(long_module, "STRETCH", {"cpu": 32})
    parts = vocoded(recipe, tmp_path / "a.npy", tmp_path / "parts.wav")
    assert parts.written == whole.written
    assert (tmp_path / "parts.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()


def test_long_audio_is_matched_as_short_audio_is(tmp_path, monkeypatch, model):
    noise = 0.1 * np.random.default_rng(0).standard_normal(100 * CONFIG.hop_length)
    write_audio(tmp_path / "a.wav", noise, CONFIG.sampling_rate)
    whole = vocoded(Recipe(model, device="cpu"), tmp_path / "a.wav", tmp_path / "whole.wav")
    plain = Recipe(model, device="cpu", match_mel=0.0)
    vocoded(plain, tmp_path / "a.wav", tmp_path / "plain.wav")
    monkeypatch.setattr(job_module, "LONG", 40)
    monkeypatch.setattr(long_module, "STRETCH", {"cpu": 32})
    parts = vocoded(Recipe(model, device="cpu"), tmp_path / "a.wav", tmp_path / "parts.wav")
    assert parts.written == whole.written
    found = [(tmp_path / f"{name}.wav").read_bytes() for name in ("parts", "whole", "plain")]
    assert found[0] == found[1] != found[2]


def test_one_that_cannot_be_written_ends_the_run(tmp_path, monkeypatch, model):
    np.save(tmp_path / "a.npy", random_input(CONFIG, 100)[0][0].astype(np.float32))
    monkeypatch.setattr(job_module, "LONG", 40)

    def full(*_, **__):
        raise OutputError("no room")

    monkeypatch.setattr(long_module, "open_audio", full)
    job = Recipe(model, device="cpu").load()
    tasks = [Task(tmp_path / "a.npy", tmp_path / f"{i}.wav") for i in range(3)]
    outcomes = []
    with pytest.raises(OutputError, match="no room"):
        outcomes.extend(job.run(tasks, lambda message: None))
    assert not list(tmp_path.glob("*.wav"))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_the_same_file_from_any_npy(tmp_path, monkeypatch, model, dtype, order):
    np.save(tmp_path / "a.npy", np.asarray(random_input(CONFIG, 333)[0][0], dtype, order))
    recipe = Recipe(model, device="cpu", seed=7)
    whole = vocoded(recipe, tmp_path / "a.npy", tmp_path / "whole.wav")
    monkeypatch.setattr(job_module, "LONG", 40)
    parts = vocoded(recipe, tmp_path / "a.npy", tmp_path / "parts.wav")
    assert parts.written == whole.written
    assert (tmp_path / "parts.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()


def test_a_mel_that_shrinks_meanwhile_fails_alone(tmp_path, monkeypatch, model):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", random_input(CONFIG, 333)[0][0].astype(np.float32))
    monkeypatch.setattr(job_module, "LONG", 40)
    real = job_module.Job._alone

    def shrinking(self, task, mel):
        if task.source.name == "a.npy":
            os.truncate(task.source, 2000)
        return real(self, task, mel)

    monkeypatch.setattr(job_module.Job, "_alone", shrinking)
    tasks = [Task(tmp_path / f"{name}.npy", tmp_path / f"{name}.wav") for name in "ab"]
    bad, good = Recipe(model, device="cpu").load().run(tasks, lambda message: None)
    assert isinstance(bad.error, InputError)
    assert "changed while it was read" in str(bad.error)
    assert good.written is not None
    assert sorted(path.name for path in tmp_path.glob("*.wav")) == ["b.wav"]


def test_one_that_no_wav_can_hold_is_refused_at_once(tmp_path, monkeypatch, model):
    np.save(tmp_path / "a.npy", random_input(CONFIG, 100)[0][0].astype(np.float32))
    monkeypatch.setattr(job_module, "LONG", 40)
    monkeypatch.setattr("fastglow.audio.writing.MAX_WAV", 100 * 256 * 2 - 1)
    monkeypatch.setattr(Vocoder, "stream", None)  # would raise
    outcome = vocoded(Recipe(model, device="cpu"), tmp_path / "a.npy", tmp_path / "a.wav")
    assert "write .flac" in str(outcome.error)
    assert not (tmp_path / "a.wav").exists()
