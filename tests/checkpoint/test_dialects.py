"""Every dialect gives the same weights and hyperparameters as PyTorch's reading of it."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from torch_files import DATA, SMALL, published, saved, state_dict, torch_tensors

from fastglow.checkpoint import Weights, load_weights
from fastglow.config import WaveGlowConfig, WNConfig
from fastglow.errors import CheckpointError

import models

INDEX = {entry["file"]: entry for entry in json.loads((DATA / "index.json").read_text())}
NEW = sorted(name for name, entry in INDEX.items() if entry["golden"] == "tiny-new.golden.npz")
# The others were made from the tiny-module weights by folding weight norm in float32 and, in some,
# splitting the result again: a few roundings of 2**-24 each. tiny-half was rounded to fp16.
ROUNDING = dict.fromkeys(NEW, 8 * 2.0**-24) | {"tiny-half.pt": 2.0**-11}


@pytest.fixture
def weights() -> Weights:
    return models.random_weights(SMALL, seed=3)


def stored(tmp_path: Path, root: object, *, legacy: bool = False) -> Path:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(saved(root, legacy=legacy))
    return path


@pytest.mark.parametrize("name", INDEX)
def test_hyperparameters_are_those_of_the_index(name: str) -> None:
    expected, config = INDEX[name]["config"], load_weights(DATA / name).config
    found = config.to_dict() | {"WN_config": config.to_dict()["wn"]}
    assert {key: found[key] for key in expected} == expected
    assert config.hop_length == 256
    assert config.upsample_kernel == 1024
    assert config.coupling == ("alternating" if "glow_old" in name else "fixed")


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code:UserWarning")
@pytest.mark.parametrize("name", INDEX)
def test_weights_are_those_that_torch_reads(name: str) -> None:
    weights, tensors = load_weights(DATA / name), torch_tensors(DATA / name)
    for key in weights:
        assert weights[key].dtype == np.float64
        np.testing.assert_allclose(weights[key], published(tensors, key), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NEW)
def test_all_dialects_of_one_model_are_one_model(name: str) -> None:
    reference, weights = load_weights(DATA / "tiny-module.pt"), load_weights(DATA / name)
    assert list(weights) == list(reference)
    for key in weights:
        np.testing.assert_allclose(
            weights[key],
            reference[key],
            rtol=ROUNDING[name],
            atol=ROUNDING[name] * np.abs(reference[key]).max(),
        )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tiny-module.pt", ("pickled module glow.WaveGlow", "weight_g/weight_v")),
        ("tiny-module-removed.pt", ("pickled module glow.WaveGlow", "no weight norm")),
        ("tiny-res_skip_split.pt", ("one cond layer per WN layer", "separate res_layers")),
        ("tiny-state_dict-ddp.pt", ("state_dict", "prefix module.")),
        ("tiny-parametrized.pt", ("state_dict", "parametrizations")),
        ("tiny-glow_old-legacy.pt", ("glow_old.WaveGlow", "one cond layer per WN layer")),
    ],
)
def test_the_dialect_is_named(name: str, words: tuple[str, ...]) -> None:
    provenance = load_weights(DATA / name).provenance
    assert all(word in provenance.dialect for word in words)
    assert provenance.container == ("torch legacy" if "legacy" in name else "torch zip")
    assert len(provenance.sha256) == 64


@pytest.mark.parametrize("case", models.ODD)
@pytest.mark.parametrize("legacy", [False, True])
def test_hyperparameters_are_inferred_from_shapes(tmp_path: Path, case: str, legacy: bool) -> None:
    config = models.ODD[case]
    expected = models.random_weights(config)
    path = stored(tmp_path, state_dict(expected, torch.float64), legacy=legacy)
    dialect = "glow_old" if config.coupling == "alternating" else "glow"
    found = load_weights(path, hop=config.hop_length, rate=16000, dialect=dialect)
    if config.n_early_size == 0:
        config = replace(config, n_early_every=found.config.n_early_every)
    assert found.config.flow_channels == config.flow_channels
    if len(set(config.flow_channels)) > 1:
        assert found.config == replace(config, sampling_rate=16000)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def test_what_was_assumed_is_noted(tmp_path: Path, weights: Weights) -> None:
    found = load_weights(stored(tmp_path, state_dict(weights)))
    notes = " ".join(found.provenance.notes)
    assert all(word in notes for word in ("glow_old", "Hop", "22050", "shapes"))
    assert (found.config.hop_length, found.config.coupling) == (8, "fixed")
    given = load_weights(tmp_path / "checkpoint.pt", hop=8, rate=16000, dialect="glow_old")
    assert (given.config.sampling_rate, given.config.coupling) == (16000, "alternating")
    assert not any(word in " ".join(given.provenance.notes) for word in ("Hop", "22050"))


@pytest.mark.parametrize(
    ("dtype", "places"),
    [(torch.float16, 11), (torch.bfloat16, 8), (torch.float32, 24), (torch.float64, 53)],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_every_float_is_read(
    tmp_path: Path, weights: Weights, dtype: torch.dtype, places: int, legacy: bool
) -> None:
    tensors = state_dict(weights, dtype)
    found = load_weights(stored(tmp_path, tensors, legacy=legacy))
    for name in weights:
        np.testing.assert_array_equal(found[name], tensors[name].double().numpy())
        np.testing.assert_allclose(found[name], weights[name], rtol=2.0**-places, atol=1e-7)


@pytest.mark.parametrize("legacy", [False, True])
def test_views_of_a_shared_storage_are_read(tmp_path: Path, weights: Weights, legacy: bool) -> None:
    tensors = state_dict(weights)
    buffer = torch.cat([tensor.flatten() for tensor in tensors.values()])
    position, views = 0, {}
    for name, tensor in tensors.items():
        views[name] = buffer[position : position + tensor.numel()].view(tensor.shape)
        position += tensor.numel()
    name = "upsample.weight"
    views[name] = views[name].transpose(0, 1).contiguous().transpose(0, 1)
    found = load_weights(stored(tmp_path, views, legacy=legacy))
    for name in weights:
        np.testing.assert_array_equal(found[name], tensors[name].double().numpy())


def test_parameters_and_numpy_arrays_are_read(tmp_path: Path, weights: Weights) -> None:
    tensors: dict[str, Any] = {
        name: torch.nn.Parameter(tensor) if "WN.0" in name else tensor.numpy()
        for name, tensor in state_dict(weights).items()
    }
    found = load_weights(stored(tmp_path, {"model_state_dict": tensors}))
    for name in weights:
        np.testing.assert_array_equal(found[name], weights[name].astype(np.float32))


@pytest.mark.parametrize("prefix", ["module.", "model.waveglow.", "generator."])
def test_prefixes_are_taken_off(tmp_path: Path, weights: Weights, prefix: str) -> None:
    tensors = {prefix + name: tensor for name, tensor in state_dict(weights).items()}
    tensors["other.weight"] = torch.ones(2)
    found = load_weights(stored(tmp_path, {"state_dict": tensors}))
    assert prefix in found.provenance.dialect
    np.testing.assert_array_equal(
        found["upsample.bias"], weights["upsample.bias"].astype(np.float32)
    )


NVIDIA_JSON = {
    "data_config": {"hop_length": 8, "sampling_rate": 16000, "filter_length": 64, "mel_fmax": 7000},
    "waveglow_config": {"n_flows": 4, "n_group": 4, "WN_config": {"n_layers": 2}},
}
ARGUMENTS = argparse.Namespace(flows=4, groups=4, early_every=2, wn_layers=2, sampling_rate=16000)


@pytest.mark.parametrize("settings", [NVIDIA_JSON, ARGUMENTS, {"sampling_rate": 16000}])
def test_settings_in_the_file_are_used(tmp_path: Path, weights: Weights, settings: Any) -> None:
    root = {"state_dict": state_dict(weights), "config": settings, "optimizer": {"hop_length": 3}}
    found = load_weights(stored(tmp_path, root))
    assert found.config.sampling_rate == 16000
    if settings is NVIDIA_JSON:
        assert (found.config.mel.n_fft, found.config.mel.fmax) == (64, 7000)


def test_a_hop_that_the_group_does_not_divide(tmp_path: Path) -> None:
    weights = models.random_weights(models.RAGGED)
    found = load_weights(stored(tmp_path, state_dict(weights)))
    assert found.config == models.RAGGED
    assert not found.config.has_phases


def edited(weights: Weights, **changes: Any) -> dict[str, torch.Tensor]:
    tensors = state_dict(weights)
    for name, value in changes.items():
        name = name.replace("__", ".")
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    return tensors


def bad(value: float, *shape: int) -> torch.Tensor:
    return torch.full(shape, value)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"WN__1__end__weight": None}, "no tensor named WN.1.end.weight"),
    "missing upsampling": ({"upsample__weight": None}, "no tensor named upsample.weight"),
    "nan": ({"WN__1__end__bias": bad(float("nan"), 4)}, "WN.1.end.bias .*not finite"),
    "infinite": ({"upsample__bias": bad(float("inf"), 3)}, "upsample.bias .*not finite"),
    "singular": ({"convinv__1__conv__weight": bad(1.0, 4, 4, 1)}, "convinv.1.conv.weight .*sing"),
    "zero": ({"convinv__2__conv__weight": bad(0.0, 2, 2, 1)}, "convinv.2.conv.weight .*singular"),
    "shape": ({"WN__1__start__bias": bad(0.0, 5)}, r"WN.1.start.bias has shape \[5\]"),
    "extra flow": (
        {"convinv__4__conv__weight": torch.eye(2)[:, :, None]},
        r"\[4, 4, 2, 2, 2\] channels",
    ),
    "extra layer": ({"WN__1__in_layers__2__bias": bad(0.0, 8)}, "WN.1.in_layers.2.bias"),
    "both weights": ({"WN__0__end__weight_g": bad(1.0, 4, 1, 1)}, "WN.0.end has"),
    "half a weight norm": (
        {"WN__0__end__weight": None, "WN__0__end__weight_v": bad(1.0, 4, 4, 1)},
        "WN.0.end has .*v",
    ),
    "norm over another axis": (
        {
            "WN__0__end__weight": None,
            "WN__0__end__weight_v": bad(1.0, 4, 4, 1),
            "WN__0__end__weight_g": bad(1.0, 1, 4, 1),
        },
        "norms over every axis but the first",
    ),
    "direction of length zero": (
        {
            "WN__0__end__weight": None,
            "WN__0__end__weight_v": bad(0.0, 4, 4, 1),
            "WN__0__end__weight_g": bad(1.0, 4, 1, 1),
        },
        "WN.0.end.weight .*length zero",
    ),
    "whole and in parts": (
        {"WN__0__cond_layers__0__bias": bad(0.0, 8)},
        "WN.0.cond_layer.bias twice",
    ),
    "integers": ({"WN__0__end__bias": torch.zeros(4, dtype=torch.int64)}, "floating-point"),
    "unknown part": ({"WN__0__end__running_mean": bad(0.0, 4)}, "WN.0.end.running_mean"),
    "irregular early outputs": (
        {"convinv__3__conv__weight": torch.eye(4)[:, :, None]},
        r"\[4, 4, 2, 4\] channels",
    ),
    "another mel": ({"upsample__weight": bad(0.1, 5, 5, 32)}, "WN.0.cond_layer takes 12 channels"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_model_is_refused_by_name(tmp_path: Path, weights: Weights, name: str) -> None:
    changes, expected = WRONG[name]
    path = stored(tmp_path, edited(weights, **changes))
    with pytest.raises(CheckpointError, match=rf"checkpoint\.pt: .*{expected}"):
        load_weights(path)


@pytest.mark.parametrize(
    ("settings", "given", "expected"),
    [
        ({"n_flows": 12}, {}, "n_flows is 4 .*12"),
        ({"n_group": 8}, {}, "n_group is 4 .*8"),
        ({"n_early_every": 3}, {}, "n_early_every is 3 .*2"),
        ({"WN_config": {"n_channels": 512}}, {}, "n_channels is 4 .*512"),
        ({"hop_length": 8}, {"hop": 10}, "hop_length is 8 .*10 by the argument"),
        ({"sampling_rate": 16000}, {"rate": 22050}, "sampling_rate is 16000 .*22050"),
        ({"n_flows": "4"}, {}, "n_flows is 4 .*a number was expected"),
        ({}, {"dialect": "glow_new"}, "unknown dialect"),
        ({}, {"hop": 33}, "hop_length=33"),
        ({}, {"rate": 1}, "sampling_rate=1"),
    ],
)
def test_contradictions_are_errors(
    tmp_path: Path, weights: Weights, settings: Any, given: Any, expected: str
) -> None:
    path = stored(tmp_path, {"model": state_dict(weights), "config": settings})
    with pytest.raises(CheckpointError, match=rf"checkpoint\.pt: .*{expected}"):
        load_weights(path, **given)


def test_a_pickled_module_contradicts_the_arguments() -> None:
    with pytest.raises(CheckpointError, match="hop_length is 256 by the stride of upsample"):
        load_weights(DATA / "tiny-module.pt", hop=200)
    with pytest.raises(CheckpointError, match="dialect 'glow_old' was given, but the file holds"):
        load_weights(DATA / "tiny-module.pt", dialect="glow_old")


def test_a_kernel_of_no_known_hop_asks_for_it(tmp_path: Path) -> None:
    config = WaveGlowConfig(
        n_mel_channels=2,
        n_flows=1,
        n_group=2,
        hop_length=7,
        upsample_kernel=21,
        wn=WNConfig(n_layers=1, n_channels=2),
    )
    path = stored(tmp_path, state_dict(models.random_weights(config)))
    with pytest.raises(CheckpointError, match="give hop="):
        load_weights(path)
    assert load_weights(path, hop=7).config.hop_length == 7


def test_a_module_of_2018_is_read(tmp_path: Path, weights: Weights) -> None:
    """Modules of PyTorch 1.0 call for their backend, and wrap their tensors in ``Parameter``."""
    module = b"torch.nn.modules.container\nModuleList\n"
    backend = hostile.call("torch.nn.backends.thnn", "_get_thnn_function_backend", b")")
    storages: dict[str, bytes] = {}

    def record(cls: bytes, parameters: bytes, children: bytes) -> bytes:
        state = hostile.text("_backend") + backend
        state += hostile.text("_parameters") + b"}(" + parameters + b"u"
        state += hostile.text("_modules") + b"}(" + children + b"u"
        return b"c" + cls + b")\x81}(" + state + b"ub"

    tree: dict[str, Any] = {}
    for index, name in enumerate(weights):
        array = weights[name].astype("<f4")
        storages[str(index)] = array.tobytes()
        *path, leaf = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = hostile.float_parameter(str(index), array.shape)

    def pickled(node: dict[str, Any], cls: bytes = module) -> bytes:
        leaves = {key: value for key, value in node.items() if isinstance(value, bytes)}
        children = {key: value for key, value in node.items() if isinstance(value, dict)}
        return record(
            cls,
            b"".join(hostile.text(key) + value for key, value in leaves.items()),
            b"".join(hostile.text(key) + pickled(value) for key, value in children.items()),
        )

    path = tmp_path / "checkpoint.pt"
    path.write_bytes(hostile.as_stream(pickled(tree, b"glow_old\nWaveGlow\n") + b".", storages))
    found = load_weights(path)
    assert found.config == replace(SMALL, coupling="alternating")
    for name in weights:
        np.testing.assert_array_equal(found[name], weights[name].astype(np.float32))


OTHERS = {
    "Tacotron 2": ["decoder.attention_rnn.weight_ih", "encoder.convolutions.0.0.conv.weight"],
    "HiFi-GAN generator": ["conv_pre.weight_v", "ups.0.weight_v", "resblocks.0.convs1.0.bias"],
    "FastPitch": ["pitch_predictor.fc.weight", "duration_predictor.fc.weight"],
    "Vocos": ["backbone.convnext.0.gamma", "head.out.weight"],
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_model_is_named(tmp_path: Path, kind: str) -> None:
    tensors = {name: torch.ones(2) for name in OTHERS[kind]}
    with pytest.raises(CheckpointError, match=f"no WaveGlow in it; it looks like a {kind}"):
        load_weights(stored(tmp_path, {"state_dict": tensors}))


def test_a_mel_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"single tensor of shape \[80, 12\], perhaps a mel"):
        load_weights(stored(tmp_path, torch.zeros(80, 12)))


def test_two_models_are_ambiguous(tmp_path: Path, weights: Weights) -> None:
    tensors = state_dict(weights)
    both = {f"{prefix}.{name}": t for prefix in ("ema", "raw") for name, t in tensors.items()}
    with pytest.raises(CheckpointError, match="2 WaveGlows in it"):
        load_weights(stored(tmp_path, both))
