"""The reference against float64 outputs of the original implementation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fastglow.reference import WaveGlow

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
EXACT = {"tiny-module", "tiny-module-legacy", "deep-module"}  # the very weights of the goldens
HALF = {"tiny-half"}  # rounded to fp16 after the golden was made
GOLDEN = {
    "deep-module": "deep-new",
    "tiny-glow_old": "tiny-old",
    "tiny-glow_old-legacy": "tiny-old",
}


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def golden_noise(golden: np.lib.npyio.NpzFile) -> torch.Tensor:
    """The noises in the order drawn, last one lowest, as one audio-shaped signal."""
    names = sorted((n for n in golden.files if n.startswith("z")), key=lambda n: -int(n[1:]))
    z = np.concatenate([golden[n] for n in names], axis=1)
    return torch.from_numpy(z.transpose(0, 2, 1).reshape(z.shape[0], -1)).double()


CHECKPOINTS = sorted(p for p in DATA.glob("*.pt") if p.stem.startswith(("tiny-", "deep-")))


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda p: p.stem)
def test_infer_matches_the_original(path: Path) -> None:
    checkpoint = pytest.importorskip("fastglow.checkpoint")
    golden_path = DATA / f"{GOLDEN.get(path.stem, 'tiny-new')}.golden.npz"
    if not golden_path.exists():
        pytest.skip(f"no {golden_path.name}")
    model = WaveGlow.from_weights(checkpoint.load_weights(path))
    golden = np.load(golden_path)
    mel, sigma = torch.from_numpy(golden["mel"]).double(), float(golden["sigma"])
    expected = torch.from_numpy(golden["audio"])
    noise = golden_noise(golden)
    with torch.no_grad():
        audio = model.infer(mel, noise, sigma)
        latent = model(audio, mel)
    limit = 1e-10 if path.stem in EXACT else 2e-3 if path.stem in HALF else 1e-7
    assert relative(audio, expected) < limit
    assert relative(latent.z, sigma * noise) < 1e-10
