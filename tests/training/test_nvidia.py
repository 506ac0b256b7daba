"""NVIDIA's programs compute with the exported weights what ours are."""

from pathlib import Path

import pytest
import torch

from fastglow.checkpoint import Weights, load_weights
from fastglow.config import WaveGlowConfig, WNConfig
from fastglow.errors import InputError
from fastglow.reference import WaveGlow
from fastglow.training.nvidia import save_nvidia

CONFIG = WaveGlowConfig(n_mel_channels=4, n_flows=4, wn=WNConfig(n_layers=2, n_channels=4))


@pytest.fixture
def weights() -> Weights:
    torch.manual_seed(0)
    model = WaveGlow(CONFIG)
    for flow in model.WN:
        flow.end.weight.data.normal_()
    model.WN[0].start.weight.data[1] = 0
    return Weights(CONFIG, model.to_tensors())


def test_weight_norm_gives_the_weights_back(weights: Weights, tmp_path: Path) -> None:
    """Through PyTorch's own weight norm, which is what NVIDIA's module uses."""
    save_nvidia(weights, tmp_path / "x.pt")
    saved = torch.load(tmp_path / "x.pt", weights_only=True)
    state = saved["state_dict"]
    assert saved["config"]["WN_config"] == {"n_layers": 2, "n_channels": 4, "kernel_size": 3}
    names = {name.removesuffix("_g").removesuffix("_v") for name in state}
    assert names == set(weights)
    for name in weights:
        found = state.get(name)
        if found is None:
            found = torch._weight_norm(state[f"{name}_v"], state[f"{name}_g"], 0)
        torch.testing.assert_close(found.double(), torch.tensor(weights[name]), atol=1e-6, rtol=0)
    normed = {name.split(".", 2)[2] for name in state if name.endswith("_g")}
    assert normed == {
        "start.weight_g", "cond_layer.weight_g", "in_layers.0.weight_g", "in_layers.1.weight_g",
        "res_skip_layers.0.weight_g", "res_skip_layers.1.weight_g",
    }  # fmt: skip


def test_it_reads_back(weights: Weights, tmp_path: Path) -> None:
    save_nvidia(weights, tmp_path / "x.pth")
    found = load_weights(tmp_path / "x.pth")
    assert found.config == CONFIG
    for name in weights:
        torch.testing.assert_close(
            torch.tensor(found[name]), torch.tensor(weights[name]), atol=1e-6, rtol=0
        )


@pytest.mark.parametrize(
    ("config", "name", "message"),
    [
        ({}, "x.safetensors", r"ending in \.pt or \.pth"),
        ({"coupling": "alternating"}, "x.pt", "fixed coupling; .* and alternating"),
        ({"hop_length": 128, "upsample_kernel": 512}, "x.pt", "has 128, 512"),
    ],
)
def test_what_it_cannot_hold_is_refused(
    config: dict[str, object], name: str, message: str, tmp_path: Path
) -> None:
    fields = {"n_mel_channels": 4, "n_flows": 2, "wn": WNConfig(1, 4)}
    model = WaveGlow(WaveGlowConfig(**{**fields, **config}))
    with pytest.raises(InputError, match=message):
        save_nvidia(Weights(model.config, model.to_tensors()), tmp_path / name)
    assert not list(tmp_path.iterdir())
