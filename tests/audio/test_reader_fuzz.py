"""Whatever happens to a mel or audio file, one clear line comes out, and in bounded memory."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable
from pathlib import Path

import clips
import numpy as np
import pytest
import soundfile
import torch
from safetensors.numpy import save_file

from fastglow.audio import read_audio, read_mel
from fastglow.config import WaveGlowConfig
from fastglow.errors import CheckpointError, InputError

from fuzzing import mutations, truncations

CASES, SLOW_CASES = 500, 20_000
CONFIG = WaveGlowConfig(n_mel_channels=8)
MEL = np.random.default_rng(0).normal(-5, 2, (8, 12)).astype(np.float32)
MELS: dict[str, Callable[[Path], None]] = {
    "a.npy": lambda path: np.save(path, MEL),
    "a.npz": lambda path: np.savez(path, mel=MEL),
    "b.npz": lambda path: np.savez_compressed(path, mel=MEL),
    "a.pt": lambda path: torch.save({"mel": torch.from_numpy(MEL)}, path),
    "a.safetensors": lambda path: save_file({"mel": MEL}, path),
}
AUDIO = {"a.wav": "PCM_16", "b.wav": "FLOAT", "a.flac": "PCM_16", "a.ogg": "VORBIS", "a.mp3": None}


def sample(folder: Path, name: str) -> bytes:
    path = folder / f"whole-{name}"
    if name in MELS:
        MELS[name](path)
    else:
        soundfile.write(path, clips.wave(clips.FILES[0])[8000:12000], 22050, AUDIO[name])
    return path.read_bytes()


def survive(path: Path, cases: Iterable[tuple[str, bytes]]) -> None:
    for what, data in cases:
        path.write_bytes(data)
        message = read(path, what)
        assert "\n" not in message, (what, message)
        assert len(message) < 600, (what, message)


def read(path: Path, what: str) -> str:
    """What the reader complains of, or nothing if it likes the file."""
    try:
        if path.name in MELS:
            found = read_mel(path, CONFIG)
            assert found.shape[0] == 8, what
        else:
            found, rate = read_audio(path, 22050)
            assert (found.ndim, rate) == (1, 22050), what
    except (InputError, CheckpointError) as error:
        return str(error)
    except BaseException as error:
        raise AssertionError(f"{path.name}, {what}: {error!r}") from error
    assert np.isfinite(found).all(), what
    return ""


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("name", [*MELS, *AUDIO])
def test_damaged(tmp_path, name):
    before = peak_megabytes()
    survive(tmp_path / name, mutations(sample(tmp_path, name), 0, CASES // 10))
    assert peak_megabytes() - before < 500


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MELS, *AUDIO])
def test_damaged_more(tmp_path, name):
    survive(tmp_path / name, mutations(sample(tmp_path, name), 1, SLOW_CASES // 10))


@pytest.mark.parametrize("name", [*MELS, *AUDIO])
def test_cut_off(tmp_path, name):
    data = sample(tmp_path, name)
    survive(tmp_path / name, truncations(data, step=max(1, len(data) // 100)))
