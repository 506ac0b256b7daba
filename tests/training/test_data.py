"""Segments come from the recordings, in the proportions asked for, and repeatably."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fastglow.errors import InputError
from fastglow.training.data import Segments, read_folder, respeed, weighted


def ramp(start: int, length: int) -> torch.Tensor:
    return torch.arange(start, start + length).to(torch.int16)


def test_reads_a_folder(tmp_path: Path) -> None:
    wave = np.arange(100, dtype=np.int16)
    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "a" / "x.flac", wave, 8000)
    soundfile.write(tmp_path / "y.wav", wave[::2], 8000)
    found = read_folder(tmp_path, 8000)
    assert list(found) == ["a/x.flac", "y.wav"]
    np.testing.assert_array_equal(found["a/x.flac"], wave)
    assert weighted(found, {"a/": 3.0}) == [3.0, 1.0]
    with pytest.raises(InputError, match="expected mono at 16000"):
        read_folder(tmp_path, 16000)
    soundfile.write(tmp_path / "z.wav", np.zeros((10, 2)), 8000)
    with pytest.raises(InputError, match="2 channels"):
        read_folder(tmp_path, 8000)
    with pytest.raises(InputError, match=r"no \.flac"):
        read_folder(tmp_path / "nothing", 8000)


def test_segments_are_pieces_mirrored_at_the_ends() -> None:
    segments = Segments([ramp(0, 20), ramp(1000, 40)], segment=16, margin=4)
    drawn = (segments.draw(400, torch.Generator().manual_seed(0)) * 32768).round().int()
    whole = [np.pad(np.arange(a, a + n), 4, mode="reflect") for a, n in ((0, 20), (1000, 40))]
    allowed = {tuple(w[i : i + 24]) for w in whole for i in range(len(w) - 23)}
    assert {tuple(row.tolist()) for row in drawn} == allowed  # every piece, and no other


def test_weights_are_shares_of_samples() -> None:
    segments = Segments([ramp(0, 115), ramp(1000, 115)], 16, 0, weights=[3.0, 1.0])
    drawn = segments.draw(4000, torch.Generator().manual_seed(0))
    assert float((drawn[:, 0] * 32768 < 500).float().mean()) == pytest.approx(0.75, abs=0.03)


def test_short_recordings_are_followed_by_silence() -> None:
    segments = Segments([ramp(1, 5)], segment=16, margin=2)
    drawn = segments.draw(1, torch.Generator())[0] * 32768
    assert drawn.tolist() == [3, 2, 1, 2, 3, 4, 5, *[0] * 13]


def test_draws_depend_on_the_generator_alone() -> None:
    segments = Segments([ramp(0, 500)], 16, 4)
    first = segments.draw(8, torch.Generator().manual_seed(5))
    segments.draw(8, torch.Generator().manual_seed(6))
    torch.testing.assert_close(segments.draw(8, torch.Generator().manual_seed(5)), first)


@pytest.mark.parametrize("ratio", [0.875, 8 / 7])
def test_respeed_moves_the_pitch(ratio: float) -> None:
    t = np.arange(8000) / 8000
    wave = torch.from_numpy((8000 * np.sin(2 * np.pi * 400 * t)).astype(np.int16))
    moved = respeed(wave, ratio)
    assert moved.shape[0] == round(8000 * ratio)
    middle = moved[1000:5096].double().numpy()
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(4096)))
    assert np.argmax(spectrum) * 8000 / 4096 == pytest.approx(400 / ratio, abs=2)
    assert np.std(middle) == pytest.approx(8000 / np.sqrt(2), rel=0.02)
