"""The Python interface: shapes, seeds, noise, lengths, denoising, threads."""

import threading

import numpy as np
import pytest
import torch

import fastglow
from fastglow.checkpoint import save_safetensors
from fastglow.errors import CheckpointError, InputError
from fastglow.noise import normal
from fastglow.reference.waveglow import WaveGlow

from models import TINY, random_input, random_weights, relative_error


@pytest.fixture(scope="module")
def weights():
    return random_weights(TINY)


@pytest.fixture(scope="module")
def vocoder(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("voice")
    save_safetensors(weights, folder, dtype="float64")
    return fastglow.Vocoder.load(folder)


def test_it_equals_the_published_network_with_the_same_noise(vocoder, weights):
    mel, _ = random_input(TINY, 40, 2)
    z = np.stack([normal(5, TINY.samples(40)), normal(9, TINY.samples(40))])
    network = WaveGlow.from_weights(weights)
    expected = network.infer(torch.tensor(mel), torch.tensor(z).double(), 0.6).detach().numpy()
    found = vocoder.synthesize(mel, seed=[5, 9])
    assert found.dtype == np.float32
    assert relative_error(found, expected) <= 5e-6
    assert np.array_equal(vocoder.synthesize(torch.tensor(mel), noise=z), found)
    assert np.array_equal(vocoder.synthesize(mel[0], seed=5), found[0])


def test_shapes_and_attributes(vocoder):
    mel, _ = random_input(TINY, 10)
    assert vocoder.synthesize(mel[0]).shape == (2560,)
    assert vocoder.synthesize(mel).shape == (1, 2560)
    assert (vocoder.sampling_rate, vocoder.hop_length) == (22050, 256)
    assert vocoder.config == TINY


@pytest.mark.parametrize(
    "manner", [{}, {"denoise": 0.1}, {"match_mel": 1.0}, {"denoise": 0.1, "match_mel": 0.5}]
)
def test_padded_rows_equal_their_solo_runs_denoised_and_matched_too(vocoder, manner):
    mel, _ = random_input(TINY, 50, 3)
    lengths = [50, 1, 33]
    mel[1, :, 1:] = np.nan
    audio, samples = vocoder.synthesize(mel, lengths=lengths, **manner)
    assert samples.tolist() == [256 * n for n in lengths]
    for row, count in enumerate(lengths):
        solo = vocoder.synthesize(mel[row, :, :count], **manner)
        assert np.array_equal(audio[row, : samples[row]], solo)
        assert not audio[row, samples[row] :].any()


def test_sigma_zero_needs_no_noise_and_seeds_differ(vocoder):
    mel = random_input(TINY, 10)[0][0]
    still = vocoder.synthesize(mel, sigma=0)
    assert np.array_equal(still, vocoder.synthesize(mel, sigma=0, seed=4))
    assert not np.array_equal(vocoder.synthesize(mel, seed=1), vocoder.synthesize(mel, seed=2))


def test_denoising_takes_the_models_hum_away(vocoder):
    silence = np.zeros((TINY.n_mel_channels, 60), dtype=np.float32)
    hum = vocoder.synthesize(silence, sigma=0)
    quiet = vocoder.synthesize(silence, sigma=0, denoise=1.0)
    middle = slice(20 * 256, 40 * 256)  # the bias is that of the first frame: edges differ
    assert np.sqrt((quiet[middle] ** 2).mean()) < np.sqrt((hum[middle] ** 2).mean())


def test_several_threads_get_the_same_audio(vocoder):
    mel = random_input(TINY, 60)[0][0]
    expected, found = vocoder.synthesize(mel, denoise=0.1), []
    work = [
        threading.Thread(target=lambda: found.append(vocoder.synthesize(mel, denoise=0.1)))
        for _ in range(6)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(found) == 6
    assert all(np.array_equal(audio, expected) for audio in found)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"mel": np.zeros((7, 10), np.float32)}, "7, 10"),
        ({"mel": np.zeros((10, 8), np.float32)}, "transposed"),
        ({"mel": np.zeros((8, 0), np.float32)}, "8, 0"),
        ({"mel": np.zeros(8, np.float32)}, "shape"),
        ({"mel": np.float32(0)}, "shape"),
        ({"mel": np.zeros((8, 4), np.int64)}, "int64"),
        ({"mel": np.full((8, 4), np.nan)}, "NaN"),
        ({"mel": np.full((8, 4), 1e300)}, "infinite"),
        ({"sigma": -1}, "sigma"),
        ({"sigma": float("nan")}, "sigma"),
        ({"seed": -1}, "seed"),
        ({"seed": [1, 2]}, "seeds"),
        ({"noise": np.zeros(5)}, "noise"),
        ({"noise": np.full(1024, np.nan)}, "noise"),
        ({"lengths": [5]}, "lengths"),
        ({"lengths": [0]}, "lengths"),
        ({"lengths": [1, 1]}, "lengths"),
        ({"lengths": 4}, "lengths"),
        ({"lengths": ["a"]}, "lengths"),
        ({"lengths": [3.7]}, "lengths"),
        ({"seed": 1.5}, "seed"),
        ({"seed": None}, "seed"),
        ({"seed": ["a"]}, "seed"),
        ({"sigma": "0.6"}, "sigma"),
        ({"sigma": 1e39}, "sigma"),
        ({"denoise": -0.1}, "denoise"),
        ({"match_mel": float("nan")}, "match_mel"),
        ({"match_mel": 1.5}, "0 to 1$"),
    ],
)
def test_bad_arguments_are_one_clear_error(vocoder, arguments, word):
    given = {"mel": np.zeros((8, 4), np.float32), **arguments}
    with pytest.raises(InputError, match=word):
        vocoder.synthesize(given.pop("mel"), **given)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"device": "tpu"}, InputError),
        ({"precision": "fp1"}, InputError),
        ({"conditioning": "none"}, InputError),
        ({"threads": 0}, InputError),
        ({"source": "no-such-voice"}, InputError),
        ({"source": __file__}, CheckpointError),
    ],
)
def test_bad_loads_are_one_clear_error(arguments, error):
    with pytest.raises(error):
        fastglow.Vocoder.load(**arguments)
