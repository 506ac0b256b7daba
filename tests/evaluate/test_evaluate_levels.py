"""Whistles, noise floor and peak against what theory says of tones in white noise."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from known import RATE, noise, speech

from fastglow.errors import InputError
from fastglow.evaluate import levels


def with_line(k, group, amplitude, sigma=0.01, seconds=20):
    wave = noise(sigma, seconds)
    return wave + amplitude * np.cos(2 * np.pi * k / group * np.arange(wave.size) + 0.3)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("amplitude", [5e-4, 5e-3])
def test_a_tone_raises_its_line_by_what_theory_says(k, amplitude):
    found = levels.whistles(with_line(k, 8, amplitude))
    # Under a Hann window the tone's bin has (A N / 4)^2, noise of variance s^2 has 3/8 N s^2.
    expected = 10 * math.log10(1 + amplitude**2 * 4096 / (6 * 0.01**2))
    for line, level in enumerate(found, start=1):
        assert level == pytest.approx(expected if line == k else 0, abs=1.0)


def test_lines_follow_the_group():
    found = levels.whistles(with_line(1, 12, 5e-3), group=12)
    expected = 10 * math.log10(1 + 5e-3**2 * 4080 / (6 * 0.01**2))
    assert found[0] == pytest.approx(expected, abs=1.0)
    assert found[1] == pytest.approx(0, abs=1.0)
    assert levels.whistles(noise(0.1), group=4)[1:] == (None, None)  # the Nyquist and above it


def test_no_line_where_there_is_nothing_to_measure():
    assert levels.whistles(noise(0.1)[:4095]) == (None,) * 3
    assert levels.whistles(np.zeros(RATE)) == (None,) * 3
    assert None not in levels.whistles(noise(0.1)[:4096])


def test_noise_and_speech_do_not_hum():
    assert levels.hop_hum(noise(0.1, 20), 256) == pytest.approx(0, abs=0.3)
    assert levels.hop_hum(speech(3.0), 256) == pytest.approx(0, abs=1.0)
    assert levels.hop_hum(noise(0.1)[:4095], 256) is None
    assert levels.hop_hum(np.zeros(RATE), 256) == 0


@pytest.mark.parametrize("hop", [256, 200])
def test_what_repeats_every_hop_hums(hop):
    sigma, amplitude = 0.01, 0.02
    clicks = np.where(np.arange(RATE * 10) % hop == 0, amplitude * hop / 2, 0)  # all lines at once
    # A tone's bin has (A N / 4)^2; the mean log of noise is 3/8 N s^2 less Euler's constant.
    expected = (
        10 * math.log10(amplitude**2 * 16 * hop / (6 * sigma**2))
        + 10 * math.log10(math.e) * np.euler_gamma
    )
    assert levels.hop_hum(clicks + noise(sigma, 10), hop) == pytest.approx(expected, abs=0.5)
    assert abs(levels.hop_hum(clicks + noise(sigma, 10), 7 * hop // 5 + 1)) < 3


@pytest.mark.parametrize("sigma", [1e-4, 0.1])
def test_the_noise_floor_is_the_level_of_the_noise_between_words(sigma):
    steady = noise(sigma)
    # The RMS of 1024 Gaussian samples scatters by 1 / sqrt(2 * 1024); 1.645 of it is 5 %.
    expected = 20 * math.log10(sigma * (1 - 1.645 / math.sqrt(2048)))
    assert levels.noise_floor(steady) == pytest.approx(expected, abs=0.2)
    words = steady + np.where(np.arange(steady.size) % RATE < RATE // 2, noise(1.0, seed=1), 0)
    assert levels.noise_floor(words) == pytest.approx(expected, abs=0.5)


def test_the_noise_floor_of_silence_and_of_one_sample():
    assert levels.noise_floor(np.zeros(RATE)) == -120
    assert levels.noise_floor(np.array([0.1])) == pytest.approx(-20)


def test_the_peak_is_the_largest_magnitude():
    assert levels.peak(np.array([0.1, -1.25, 1.0])) == 1.25


@pytest.fixture
def fake_mos(monkeypatch):
    """A network that gives the seconds that it hears, and prints like the real one."""
    torch = pytest.importorskip("torch")

    def network():
        print("weights loaded from: here")
        model = torch.nn.Module()
        model.forward = lambda batch: batch.shape[1] / torch.tensor([16000.0])
        return model

    fake = SimpleNamespace(ConvTransformerSQAModel=network)
    monkeypatch.setitem(sys.modules, "distillmos", fake)


def test_the_mos_predictor_hears_16_khz_in_parts_and_prints_nothing(fake_mos, capsys):
    predictor, note = levels.find_mos_predictor()
    assert (note, capsys.readouterr().out) == ("", "")
    assert predictor(speech(1.0), RATE) == pytest.approx(1.0, abs=1e-3)
    assert predictor(noise(0.1, 20), RATE) == pytest.approx(10.0, abs=1e-3)  # two parts
    assert predictor(np.zeros(RATE), RATE) is None


def test_no_mos_predictor_is_a_note_with_its_mend(monkeypatch):
    monkeypatch.setitem(sys.modules, "distillmos", None)
    predictor, note = levels.find_mos_predictor()
    assert predictor is None
    assert note.endswith("pip install distillmos")
    with pytest.raises(InputError, match="pip install distillmos"):
        levels.mos_predictor()


def test_distillmos_hears_noise():
    predictor, note = levels.find_mos_predictor()
    if predictor is None:
        pytest.skip(note)
    wave = speech(3.0)
    clean = predictor(wave, RATE)
    assert 3 < clean <= 5
    assert 1 <= predictor((wave + noise(0.05, 3.0)).astype(np.float32), RATE) < clean - 0.5
