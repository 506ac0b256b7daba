"""Saving and loading again: safetensors, .npy folders, and lone tensors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch_files import DATA, SMALL, saved, state_dict

from fastglow.checkpoint import (
    Weights,
    load_weights,
    read_tensor_file,
    save_npy_folder,
    save_safetensors,
)
from fastglow.errors import CheckpointError

import models

TORCH = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@pytest.fixture
def weights() -> Weights:
    return models.random_weights(replace(SMALL, coupling="alternating", sampling_rate=16000))


@pytest.mark.parametrize("dtype", TORCH)
def test_safetensors_round_trip(tmp_path: Path, weights: Weights, dtype: str) -> None:
    save_safetensors(weights, tmp_path / "voice", dtype)
    found = load_weights(tmp_path / "voice")
    oracle = safetensors.torch.load_file(tmp_path / "voice" / "model.safetensors")
    assert found.config == weights.config
    assert set(oracle) == set(weights)
    for name, expected in state_dict(weights, TORCH[dtype]).items():
        assert torch.equal(oracle[name], expected)
        np.testing.assert_array_equal(found[name], expected.double().numpy())
    assert load_weights(tmp_path / "voice" / "model.safetensors").config == weights.config


@pytest.mark.parametrize("path", sorted(DATA.glob("*.pt")), ids=lambda path: path.stem)
def test_every_dialect_survives_conversion(tmp_path: Path, path: Path) -> None:
    weights = load_weights(path)
    save_safetensors(weights, tmp_path, "float64")
    found = load_weights(tmp_path)
    assert found.config == weights.config
    assert weights.provenance.dialect in found.provenance.dialect
    assert found.provenance.notes == weights.provenance.notes
    for name in weights:
        np.testing.assert_array_equal(found[name], weights[name])


def test_safetensors_of_another_program_are_inferred(tmp_path: Path, weights: Weights) -> None:
    path = tmp_path / "waveglow.safetensors"
    tensors = {f"module.{n}": t.bfloat16() for n, t in state_dict(weights).items()}
    safetensors.torch.save_file(tensors, path)
    found = load_weights(path, dialect="glow_old", rate=16000)
    assert found.config == weights.config
    for name, tensor in tensors.items():
        expected = tensor.double().numpy()
        np.testing.assert_array_equal(found[name.removeprefix("module.")], expected)
    (tmp_path / "config.json").write_text(json.dumps({"data_config": {"sampling_rate": 8000}}))
    assert load_weights(tmp_path).config.sampling_rate == 8000


def test_nothing_is_left_behind_and_a_new_file_replaces_the_old(
    tmp_path: Path, weights: Weights
) -> None:
    save_safetensors(weights, tmp_path)
    save_safetensors(load_weights(tmp_path), tmp_path, "float16")
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    assert load_weights(tmp_path).config == weights.config


def test_what_fp16_cannot_hold_is_refused_and_nothing_written(
    tmp_path: Path, weights: Weights
) -> None:
    stored = {name: weights[name] for name in weights}
    stored["WN.1.end.bias"] = np.full(4, 1e5)
    large = Weights(weights.config, stored)
    with pytest.raises(CheckpointError, match=r"WN\.1\.end\.bias .*float16 cannot hold"):
        save_safetensors(large, tmp_path, "float16")
    assert os.listdir(tmp_path) == []
    save_safetensors(large, tmp_path, "bfloat16")
    with pytest.raises(CheckpointError, match="unknown dtype"):
        save_safetensors(large, tmp_path, "int8")


def edit(path: Path, **changes: object) -> None:
    config = json.loads(path.read_text())
    for key, value in changes.items():
        target = config if key in config else config["config"]
        target[key] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"sha256": None}, "SHA-256"),
        ({"format_version": 2}, "format version 2"),
        ({"n_flows": 3}, "in the weight file but in no model"),
        ({"n_group": 8}, "has shape"),
        ({"hop_length": 8.5}, "hop_length=8.5; expected a whole number"),
        ({"n_flows": "4"}, "bad hyperparameters"),
        ({"mel": {"fmax": "8000"}}, "fmax='8000'"),
        ({"mel": {"n_fft": 1024.0}}, "n_fft=1024.0"),
        ({"mel": {"fmin": None}}, "fmin=None"),
        ({"config": None}, "no hyperparameters"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_an_edited_config_is_refused(
    tmp_path: Path, weights: Weights, changes: dict[str, object], expected: str
) -> None:
    save_safetensors(weights, tmp_path)
    edit(tmp_path / "config.json", **changes)
    with pytest.raises(CheckpointError, match=expected):
        load_weights(tmp_path)


def test_a_replaced_weight_file_is_noticed(tmp_path: Path, weights: Weights) -> None:
    save_safetensors(weights, tmp_path)
    path = tmp_path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_weights(tmp_path)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"hop": 9}, "hop=9"),
        ({"rate": 44100}, "rate=44100"),
        ({"dialect": "glow"}, "dialect=fixed"),
    ],
)
def test_arguments_that_contradict_the_config(
    tmp_path: Path, weights: Weights, given: dict[str, object], expected: str
) -> None:
    save_safetensors(weights, tmp_path)
    with pytest.raises(CheckpointError, match=expected):
        load_weights(tmp_path, **given)  # type: ignore[arg-type]
    assert load_weights(tmp_path, hop=8, rate=16000, dialect="glow_old").config == weights.config


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100_000, "\xff"])
def test_a_broken_config_is_refused(tmp_path: Path, weights: Weights, text: str) -> None:
    save_safetensors(weights, tmp_path)
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_weights(tmp_path)


SAFETENSORS = {
    "huge header": (2**60).to_bytes(8, "little") + b"{}",
    "header beyond the file": (100).to_bytes(8, "little") + b"{}",
    "no json": (4).to_bytes(8, "little") + b"{...",
    "a list": (4).to_bytes(8, "little") + b"{}[]",
    "deep json": (8000).to_bytes(8, "little") + b'{"a":' * 1600,
}
ENTRIES = {
    "unknown dtype": {"dtype": "F4", "shape": [1], "data_offsets": [0, 4]},
    "beyond the file": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "negative": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
    "shape and size": {"dtype": "F32", "shape": [3], "data_offsets": [0, 4]},
    "negative shape": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]},
    "true": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
    "gap": {"dtype": "U8", "shape": [2], "data_offsets": [2, 4]},
    "rest": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
    "no shape": {"dtype": "F32", "data_offsets": [0, 4]},
    "three offsets": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]},
    "no dict": 3,
}


@pytest.mark.parametrize("name", [*SAFETENSORS, *ENTRIES])
def test_damaged_safetensors_are_refused(tmp_path: Path, name: str) -> None:
    if name in SAFETENSORS:
        data = SAFETENSORS[name]
    else:
        header = json.dumps({"x": ENTRIES[name]}).encode()
        data = len(header).to_bytes(8, "little") + header + bytes(4)
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    for load in (load_weights, read_tensor_file):
        with pytest.raises(CheckpointError, match=r"x\.safetensors"):
            load(path)


# The .npy folder.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_npy_folder(models.random_weights(SMALL), tmp_path / "npy")
    return tmp_path / "npy"


def test_npy_folder_round_trip(folder: Path) -> None:
    expected, found = models.random_weights(SMALL), load_weights(folder)
    assert found.config == SMALL
    assert found.provenance.container == "npy folder"
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name].astype(np.float32))


def test_npy_folder_has_the_exporters_names(folder: Path) -> None:
    names = {path.stem for path in folder.iterdir()}
    flow = {
        f"{part}_{kind}"
        for part in ("start", "end", "cond_layer", "in_layers_1", "res_skip_layers_0")
        for kind in ("weight", "bias")
    }
    assert {"weight", "bias", "0_conv_weight", "0_conv_weight_inv"} <= names
    assert {f"{k}_{name}" for k in range(SMALL.n_flows) for name in flow} <= names
    product = np.load(folder / "0_conv_weight.npy")[:, :, 0] @ np.load(
        folder / "0_conv_weight_inv.npy"
    ).squeeze(-1)
    np.testing.assert_allclose(product, np.eye(4), atol=1e-5)


def test_npy_folder_with_a_cond_layer_per_layer(folder: Path) -> None:
    for flow in range(SMALL.n_flows):
        for kind in ("weight", "bias"):
            path = folder / f"{flow}_cond_layer_{kind}.npy"
            for layer, part in enumerate(np.split(np.load(path), SMALL.wn.n_layers)):
                np.save(folder / f"{flow}_cond_layers_{layer}_{kind}.npy", part)
            path.unlink()
    expected, found = models.random_weights(SMALL), load_weights(folder)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name].astype(np.float32))


def test_a_wrong_inverse_is_refused(folder: Path) -> None:
    path = folder / "1_conv_weight_inv.npy"
    np.save(path, np.load(path) + 0.01)
    with pytest.raises(CheckpointError, match=r"1_conv_weight_inv\.npy: not the inverse"):
        load_weights(folder)


NPY = {
    "objects": lambda path: np.save(path, np.array([{}], dtype=object), allow_pickle=True),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "huge shape": lambda path: path.write_bytes(
        path.read_bytes().replace(b"(4,)", b"(9" + b"9" * 15 + b",)")
    ),
    "no npy": lambda path: path.write_bytes(b"hello"),
    "npz": lambda path: path.write_bytes(b"PK\x03\x04"),
    "empty": lambda path: path.write_bytes(b""),
    "no literal": lambda path: path.write_bytes(
        path.read_bytes().replace(b"'descr': '<f4'", b"__import__('a')")
    ),
}


@pytest.mark.parametrize("name", NPY)
def test_damaged_npy_files_are_refused(folder: Path, name: str) -> None:
    NPY[name](folder / "0_start_bias.npy")
    with pytest.raises(CheckpointError, match=r"0_start_bias\.npy: no readable"):
        load_weights(folder)


def test_npy_folder_cannot_say_that_the_coupling_alternates(
    tmp_path: Path, weights: Weights
) -> None:
    with pytest.raises(CheckpointError, match="save as safetensors"):
        save_npy_folder(weights, tmp_path)


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        load_weights(tmp_path)
    with pytest.raises(CheckpointError, match=r"nothing\.pt: no such file"):
        load_weights(tmp_path / "nothing.pt")


# Lone tensors.


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int16])
def test_a_lone_tensor_is_read(tmp_path: Path, legacy: bool, dtype: torch.dtype) -> None:
    mel = (torch.randn(80, 7, generator=torch.Generator().manual_seed(0)) * 100).to(dtype)
    path = tmp_path / "mel.pt"
    roots = (
        mel,
        mel.T,
        {"mel": mel, "length": 7},
        [mel],
        {"x": mel},
        torch.nn.Parameter(mel.float()),
    )
    for root in roots:
        path.write_bytes(saved(root, legacy=legacy))
        expected = mel.T if root is roots[1] else mel
        np.testing.assert_array_equal(read_tensor_file(path), expected.double().numpy())


def test_a_lone_tensor_is_read_from_safetensors_and_numpy(tmp_path: Path) -> None:
    mel = torch.arange(12.0).reshape(3, 4)
    safetensors.torch.save_file({"mel": mel}, tmp_path / "mel.safetensors")
    np.testing.assert_array_equal(read_tensor_file(tmp_path / "mel.safetensors"), mel.numpy())
    for order in "CF":
        (tmp_path / "mel.pt").write_bytes(saved({"mel": np.asarray(mel.numpy(), order=order)}))
        np.testing.assert_array_equal(read_tensor_file(tmp_path / "mel.pt"), mel.numpy())


@pytest.mark.parametrize("root", [{"a": torch.ones(1), "b": torch.ones(1)}, {}, [], 3, "mel"])
def test_no_tensor_or_several_are_refused(tmp_path: Path, root: object) -> None:
    path = tmp_path / "mel.pt"
    path.write_bytes(saved(root))
    with pytest.raises(CheckpointError, match=r"mel\.pt: holds (no|2) tensors"):
        read_tensor_file(path)


# Cost.

MEMORY = """
import resource, sys
from fastglow.checkpoint import load_weights
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
weights = load_weights(sys.argv[1])
for array in weights.stored.values():
    for part in getattr(array, "__slots__", None) and (array.g, array.v) or (array,):
        part.sum(dtype="f8")
print(peak() - before)
"""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("legacy", [False, True])
def test_loading_takes_less_than_three_times_the_file(
    tmp_path: Path, dtype: torch.dtype, legacy: bool
) -> None:
    config = replace(models.TINY, n_mel_channels=80)
    weights = models.random_weights(config)
    path = tmp_path / "large.pt"
    path.write_bytes(saved({"model": state_dict(weights, dtype)}, legacy=legacy))
    size = path.stat().st_size
    assert size > 10_000_000
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 3 * size + 50_000_000


def test_loading_is_quick() -> None:
    started = time.perf_counter()
    load_weights(DATA / "tiny-module.pt")
    assert time.perf_counter() - started < 1
