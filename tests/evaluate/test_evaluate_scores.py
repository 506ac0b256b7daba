"""The judge, the baseline, and what is read from another vocoder's folder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from known import RATE, noise, speech, voiced

from fastglow.audio import mel_spectrogram
from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError
from fastglow.evaluate import scores
from fastglow.evaluate.griffin_lim import griffin_lim
from fastglow.evaluate.run import Evaluation, generated_files

for package in ("librosa", "pesq", "pystoi"):
    pytest.importorskip(package)
CONFIG = WaveGlowConfig()


def test_the_judge_gives_every_metric_and_the_original_those_of_one_signal():
    judge = scores.Judge(speech(1.0), CONFIG, mos=lambda wave, rate: 4.0)
    assert list(judge.against(speech(1.0))) == [metric.key for metric in scores.METRICS]
    alone = {metric.key for metric in scores.METRICS if metric.alone}
    assert set(judge.alone(speech(1.0))) == alone
    without = scores.Judge(speech(1.0), CONFIG)
    assert set(judge.against(speech(1.0))) - set(without.against(speech(1.0))) == {"mos"}


def test_a_generated_signal_of_another_length_is_judged_where_both_are():
    wave = speech(1.0)
    longer = np.concatenate([wave, noise(0.1, 0.5).astype(np.float32)])
    for found in (longer, wave[: wave.size - 4000]):
        figures = scores.Judge(wave, CONFIG).against(found)
        assert figures["mcd"] == 0
        assert figures["stoi"] == pytest.approx(1, abs=1e-5)
        assert figures["f0_rmse"] < 15


def test_lines_are_those_of_the_voices_group():
    wave = noise(0.01, 5) + 0.01 * np.cos(2 * np.pi / 12 * np.arange(5 * RATE))
    config = replace(CONFIG, n_group=12, hop_length=240, upsample_kernel=960)
    assert scores.Judge(wave, config).alone(wave)["whistle_1"] > 10
    assert scores.Judge(wave, CONFIG).alone(wave)["whistle_1"] < 5


def test_griffin_lim_keeps_the_mel_and_the_pitch():
    from fastglow.evaluate import metrics

    wave = voiced(150, 1.0).astype(np.float32)
    mel = mel_spectrogram(wave, RATE, config=CONFIG)
    found = griffin_lim(mel, CONFIG, wave.size, seed=3)
    assert found.shape == wave.shape
    cents, voicing = metrics.f0_errors(metrics.pitch(wave, RATE), metrics.pitch(found, RATE))
    assert cents < 30
    assert voicing < 5
    again, other = (griffin_lim(mel, CONFIG, wave.size, seed=seed) for seed in (3, 4))
    np.testing.assert_array_equal(found, again)
    assert np.abs(found - other).max() > 1e-3


def test_griffin_lim_of_speech_is_nearer_than_noise_of_its_spectrum():
    wave = speech(1.0)
    found = griffin_lim(mel_spectrogram(wave, RATE, config=CONFIG), CONFIG, wave.size)
    figures = scores.Judge(wave, CONFIG).against(found)
    assert figures["log_mel_l1"] < 0.25
    assert figures["stoi"] > 0.9


def test_signals_are_brought_to_the_voices_rate_and_the_originals_length(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(0.1, 0.5).reshape(-1, 1).repeat(2, 1), 44100)
    asked = []

    def generate(place, mel):
        asked.append((place, mel.shape))
        return np.zeros(mel.shape[1] * 256, np.float32)

    evaluation = Evaluation(CONFIG, generate, baseline=False)
    signals, notes = evaluation.signals(tmp_path / "a.wav", Path("deep/a.wav"))
    samples = signals["original"].size
    assert samples == pytest.approx(0.25 * RATE, abs=2)
    assert asked == [(Path("deep/a.wav"), (80, samples // 256 + 1))]
    assert signals["voice"].size == samples
    assert set(signals) == {"original", "voice"}
    assert notes == []


def test_generated_files_are_found_by_name_resampled_and_their_length_is_watched(tmp_path):
    (tmp_path / "out" / "deep").mkdir(parents=True)
    soundfile.write(tmp_path / "a.wav", speech(1.0), RATE)
    soundfile.write(tmp_path / "out" / "deep" / "a.flac", noise(0.1)[:11025], 11025)
    soundfile.write(tmp_path / "out" / "b.wav", noise(0.1)[: RATE // 2], RATE)
    generate = generated_files(tmp_path / "out", CONFIG, (".wav", ".flac"))
    evaluation = Evaluation(CONFIG, generate, baseline=False)
    signals, notes = evaluation.signals(tmp_path / "a.wav", Path("deep/a.wav"))
    assert signals["voice"].size == pytest.approx(RATE, abs=2)
    assert notes == []
    _, notes = evaluation.signals(tmp_path / "a.wav", Path("b.wav"))
    assert notes == ["b.wav: generated 0.50 s shorter; the rest is not judged"]
    with pytest.raises(InputError, match="no generated file"):
        evaluation.signals(tmp_path / "a.wav", Path("c.wav"))
    with pytest.raises(InputError, match="no such folder"):
        generated_files(tmp_path / "none", CONFIG, (".wav",))
