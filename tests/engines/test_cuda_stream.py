"""Streams on the CUDA engine: interpreted anywhere, and on the GPU where there is one."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

import fastglow.voices
from fastglow.config import WaveGlowConfig, WNConfig
from fastglow.errors import EngineError, InputError
from fastglow.noise import SeededNoise, normal
from fastglow.plan import Plan
from fastglow.vocoder import Vocoder

import interpreter
from models import RAGGED, TINY, random_input, random_weights
from streams import cut, recomputed

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="Triton is not installed")
if not torch.cuda.is_available():
    interpreter.install()

SHORT = replace(TINY, hop_length=16, upsample_kernel=64)  # two phases: the interpreter is slow
SMALL = replace(SHORT, n_flows=3, wn=WNConfig(n_layers=2, n_channels=16))
MODELS = {
    "early outputs": SMALL,
    "swapped halves, kernel 5": replace(
        SMALL, wn=WNConfig(n_layers=2, n_channels=18, kernel_size=5), coupling="alternating"
    ),
    "wide early outputs, odd bands": replace(
        SMALL, n_group=12, n_early_size=4, hop_length=24, upsample_kernel=96, n_mel_channels=7
    ),
    "kernel of 1": replace(
        SMALL, hop_length=8, upsample_kernel=8, wn=WNConfig(n_layers=2, n_channels=5, kernel_size=1)
    ),
    "a flow of many frames": replace(SMALL, n_flows=2, wn=WNConfig(n_layers=6, n_channels=8)),
}


def vocoder(config: WaveGlowConfig, device: str, form: str = "phases") -> Vocoder:
    from fastglow.engines.cuda.engine import CudaEngine

    weights = random_weights(config)
    plan = Plan(weights, form)  # type: ignore[arg-type]
    return Vocoder(weights, CudaEngine(plan, precision="fp32", device=device))


def mel_of(config: WaveGlowConfig, frames: int) -> np.ndarray:
    return random_input(config, frames)[0][0].astype(np.float32)


@pytest.mark.parametrize("form", ["phases", "published"])
@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())
def test_streamed_equals_whole(config: WaveGlowConfig, form: str, device: str) -> None:
    v = vocoder(config, device, form)
    mel = mel_of(config, 45)
    pieces = list(v.stream(cut(mel, [7, 1, 30, 3]), seed=5, frames=1))
    np.testing.assert_array_equal(np.concatenate(pieces), v.synthesize(mel, seed=5))


@pytest.mark.parametrize("frames", [1, 2, 40])
def test_one_push_of_a_whole_utterance(frames: int, device: str) -> None:
    v = vocoder(SMALL, device)
    mel = mel_of(SMALL, frames)
    np.testing.assert_array_equal(np.concatenate(list(v.stream([mel]))), v.synthesize(mel))


@pytest.mark.parametrize("lookahead", [0, 1, 4, 5])
def test_a_shorter_lookahead_is_what_it_says(lookahead: int, device: str) -> None:
    v, sizes = vocoder(SMALL, device), [7, 1, 16, 2]
    mel = random_input(SMALL, 26)[0][0]
    state = v.engine.stream(SeededNoise((5,), 0.7), lookahead)
    assert state.lookahead == lookahead
    pieces = [state.push(part.astype(np.float32)) for part in cut(mel, sizes)]
    given = np.cumsum([len(piece) for piece in pieces]) // SMALL.hop_length
    assert list(given) == [max(0, n - lookahead) for n in np.cumsum(sizes)]
    audio = np.concatenate([*pieces, state.finish()])
    noise = 0.7 * normal(5, len(audio)).astype(np.float64)
    expected = recomputed(v.engine._plan, mel, sizes, lookahead, noise)
    assert np.abs(audio - expected).max() < 1e-5 * np.abs(expected).max()


def test_pushes_wider_than_a_pass(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    v = vocoder(SMALL, device)
    history = v.engine.stream(SeededNoise((0,), 0.6))._reach.history
    monkeypatch.setattr("fastglow.engines.cuda.stream.WIDEST", history + 4)
    mel = mel_of(SMALL, 13)
    assert [new for _, new in v.engine.stream(SeededNoise((0,), 0.6))._cut(13)] == [4, 4, 4, 1]
    np.testing.assert_array_equal(np.concatenate(list(v.stream([mel]))), v.synthesize(mel))


def test_streams_and_whole_utterances_side_by_side_do_not_mix(device: str) -> None:
    v = vocoder(SMALL, device)
    mels = [mel_of(SMALL, 24), mel_of(SMALL, 24)[:, ::-1].copy()]
    whole = [v.synthesize(mel, seed=i) for i, mel in enumerate(mels)]
    states = [v.engine.stream(SeededNoise((i,), 0.6)) for i in range(2)]
    pieces: list[list[np.ndarray]] = [[], []]
    for parts in zip(*(cut(mel, [5]) for mel in mels), strict=True):
        for state, part, found in zip(states, parts, pieces, strict=True):
            found.append(state.push(part))
            again = v.synthesize(mels[0], seed=0)  # works where the stream has worked
            np.testing.assert_array_equal(again, whole[0])
    v.synthesize(mel_of(SMALL, 200))  # the buffers move to a larger place
    for state, found, expected in zip(states, pieces, whole, strict=True):
        np.testing.assert_array_equal(np.concatenate([*found, state.finish()]), expected)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_is_not_finite_raises_and_harms_no_other(device: str) -> None:
    v = vocoder(SMALL, device)
    mel = mel_of(SMALL, 20)
    whole = v.synthesize(mel)
    bad = v.engine.stream(SeededNoise((0,), 0.6))
    with pytest.raises(EngineError, match="finite"):
        bad.push(np.full_like(mel, np.inf))
    np.testing.assert_array_equal(np.concatenate(list(v.stream(cut(mel, [6])))), whole)


def test_a_ragged_hop_is_refused(device: str) -> None:
    with pytest.raises(InputError, match="hop"):
        list(vocoder(RAGGED, device, "published").stream([]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32", "fp32"])
def test_the_shipped_voice_streams_its_very_samples(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    v = Vocoder.load(device="cuda", precision=precision)  # type: ignore[arg-type]
    mel = np.load(fastglow.voices.FOLDER / "demo" / "mel.npy").astype(np.float32)
    mel = np.concatenate([mel] * 4, axis=1)
    whole = v.synthesize(mel, seed=3)
    for sizes in ([8], [64], [1, 80, 200, 37], [3000]):
        pieces = list(v.stream(cut(mel, sizes), seed=3, frames=1))
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
    monkeypatch.setattr("fastglow.engines.cuda.stream.WIDEST", 100)  # a push while one is told
    np.testing.assert_array_equal(np.concatenate(list(v.stream([mel], seed=3))), whole)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_threads_that_vocode_and_stream_at_once_do_not_mix() -> None:
    v = Vocoder.load(device="cuda")
    mel = np.load(fastglow.voices.FOLDER / "demo" / "mel.npy").astype(np.float32)
    mels = [mel[:, : 60 + 37 * i] for i in range(8)]
    whole = [v.synthesize(each, seed=i) for i, each in enumerate(mels)]

    def both(i: int) -> list[np.ndarray]:
        streamed = np.concatenate(list(v.stream(cut(mels[i], [9 + i]), seed=i, frames=1)))
        return [v.synthesize(mels[i], seed=i), streamed]

    with ThreadPoolExecutor(8) as pool:
        for i, found in zip([*range(8)] * 4, pool.map(both, [*range(8)] * 4), strict=True):
            for audio in found:
                np.testing.assert_array_equal(audio, whole[i])
