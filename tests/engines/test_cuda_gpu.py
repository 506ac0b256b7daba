"""The CUDA engine on a GPU: what needs real tensor cores, graphs and memory."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from fastglow.config import WaveGlowConfig, WNConfig
from fastglow.noise import SeededNoise, normal
from fastglow.vocoder import Vocoder
from fastglow.voices import FOLDER

from cuda_engines import engine, relative
from models import random_input

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]

WIDE = WaveGlowConfig(wn=WNConfig(n_channels=64))  # the fused layers' smallest
BARS = {"fp32": 1e-5, "tf32": 2e-3, "fp16": 2e-3, "bf16": 1.5e-2}


@pytest.mark.parametrize("precision", BARS)
def test_the_shipped_voice_is_within_the_bars(precision: str) -> None:
    """In the median of nine seeds: one alone says little, errors vary tenfold with it."""
    from fastglow.bench.model import stored_model
    from fastglow.bench.published import placed, published_graph

    v = Vocoder.load(device="cuda", precision=precision)  # type: ignore[arg-type]
    weights = stored_model("glow-64").weights
    graph = placed(published_graph(weights), "cuda", torch.float64).double()
    mel = np.load(FOLDER / "demo" / "mel.npy").astype(np.float32)
    errors = []
    for seed in range(9):
        z = (0.6 * normal(seed, v.config.samples(mel.shape[1]))).astype(np.float32)
        given = (torch.from_numpy(a[None]).to("cuda", torch.float64) for a in (mel, z))
        with torch.inference_mode():
            expected = graph(*given)[0].cpu().numpy()
        found = v.engine.infer(mel[None], z[None], [mel.shape[1]])[0]
        errors.append(relative(found, expected))
    assert float(np.median(errors)) < BARS[precision]


@pytest.mark.timeout(60, method="thread")  # ends the process: nothing else ends such a launch
def test_two_engines_side_by_side_neither_stop_nor_disturb_each_other() -> None:
    """Flows of 256 channels in one launch each, whose blocks wait for one another."""
    config = replace(WIDE, n_flows=2, wn=WNConfig(n_channels=256))
    engines = [engine(config, "cuda", "fp16") for _ in range(2)]
    given = [random_input(config, frames) for frames in (16, 40, 86)]
    given = [tuple(a.astype(np.float32) for a in pair) for pair in given]
    alone = [engines[0].infer(mel, z, [mel.shape[2]])[0] for mel, z in given]

    def wrong(k: int) -> int:
        count = 0
        for i in range(150):
            mel, z = given[(i + k) % len(given)]
            found = engines[k].infer(mel, z, [mel.shape[2]])[0]
            count += not np.array_equal(found, alone[(i + k) % len(given)])
        return count

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(wrong, range(2))) == [0, 0]


@pytest.mark.parametrize("precision", BARS)
def test_batches_buckets_and_pieces_have_the_solo_bits(precision: str) -> None:
    full = engine(WIDE, "cuda", precision)
    small = engine(WIDE, "cuda", precision, widest=512)
    mel, z = (a.astype(np.float32) for a in random_input(WIDE, 700, rows=3))
    lengths = [700, 33, 401]
    batch = full.infer(mel, z, lengths)
    np.testing.assert_array_equal(batch, small.infer(mel, z, lengths))
    for row, count in enumerate(lengths):
        size = WIDE.samples(count)
        alone = full.infer(
            mel[row : row + 1, :, :count].copy(), z[row : row + 1, :size].copy(), [count]
        )
        np.testing.assert_array_equal(batch[row, :size], alone[0])


def test_graphs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    mel = random_input(WIDE, 90)[0].astype(np.float32)
    with_graphs = engine(WIDE, "cuda", "fp16").infer(mel, SeededNoise((1,), 0.6), [90])
    monkeypatch.setenv("FASTGLOW_GRAPHS", "0")
    without = engine(WIDE, "cuda", "fp16").infer(mel, SeededNoise((1,), 0.6), [90])
    np.testing.assert_array_equal(with_graphs, without)


def test_200_random_mels_of_all_lengths_are_finite() -> None:
    v = Vocoder.load(device="cuda")
    rng = np.random.default_rng(0)
    for frames in [1, 2, 5168, *rng.integers(1, 1000, 197)]:
        mel = rng.normal(-5, 2.5, (80, int(frames))).clip(-11.6, 2).astype(np.float32)
        audio = v.synthesize(mel, seed=int(frames))
        assert np.isfinite(audio).all()
        assert audio.std() > 0


def test_memory_at_10_s_by_8_of_256_channels_stays_under_3_gb() -> None:
    config = WaveGlowConfig(wn=WNConfig(n_channels=256))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    found = engine(config, "cuda", "fp16")
    mel = torch.zeros(8, 80, 860, device="cuda")
    found.infer_device(mel, SeededNoise(tuple(range(8)), 0.6), [860] * 8)
    assert torch.cuda.max_memory_allocated() <= 3 * 2**30
