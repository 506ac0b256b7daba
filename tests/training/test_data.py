"""Segments come from the recordings, in the proportions asked for, and repeatably."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fastglow.training.check import Recording
from fastglow.training.data import Segments, respeed
from fastglow.training.settings import DataConfig
from fastglow.training.start import make_segments


def ramp(start: int, length: int) -> torch.Tensor:
    return torch.arange(start, start + length).to(torch.int16)


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


def test_copies_at_other_speeds_are_drawn_less_often(waves: list[torch.Tensor]) -> None:
    data = DataConfig(("x",), speeds=(0.5, 2.0), speed_weight=0.25)
    segments = make_segments(
        [Recording(Path("x.wav"), waves[0].numpy(), 1.0)], data, 512, 0, torch.device("cpu")
    )
    assert segments.wave.shape[0] == 8000 + 4000 + 16000
    shares = torch.tensor([8000 - 511.0, 0.25 * (4000 - 511), 0.25 * (16000 - 511)])
    torch.testing.assert_close(segments.edges.float(), shares.cumsum(0) / shares.sum())
