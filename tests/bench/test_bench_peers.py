"""The peers compute the published network, and only those that can run are asked."""

import importlib.util

import numpy as np
import pytest
import torch

from fastglow.bench import gate, peers
from fastglow.bench.candidates import Shape
from fastglow.bench.model import make_inputs, random_weights
from fastglow.bench.published import placed, published_graph
from fastglow.errors import InputError
from fastglow.reference import WaveGlow

from models import ODD

FRAMES = 12


def shape_of(tiny, folder, batch=2):
    inputs = make_inputs(tiny, FRAMES, batch, FRAMES, 2)
    return Shape(published_graph(tiny.weights), inputs, 2, folder)


@pytest.mark.parametrize("name", ODD)
def test_the_published_graph_is_the_reference(name):
    weights = random_weights(ODD[name], 1)
    mel = torch.randn(2, ODD[name].n_mel_channels, 7)
    noise = torch.randn(2, ODD[name].samples(7))
    with torch.inference_mode():
        expected = WaveGlow.from_weights(weights).infer(mel.double(), noise.double()).numpy()
        found = published_graph(weights)(mel, noise).numpy()
        half = placed(published_graph(weights), "cpu", torch.bfloat16)(mel, noise)
    assert gate.relative_error(found, expected) < 5e-6
    assert half.dtype == torch.float32  # the coupling stays in float32
    assert 1e-5 < gate.relative_error(half.numpy(), expected) < 3e-2


@pytest.mark.parametrize("key", ["pytorch", "pytorch-bf16", "onnxruntime", "openvino"])
def test_a_cpu_peer_passes_the_gate(tiny, tmp_path, key):
    (peer,) = (p for p in peers.known("cpu") if p.key == key)
    if not all(importlib.util.find_spec(module) for module in peer.modules):
        pytest.skip(f"{key} is not installed")
    shape = shape_of(tiny, tmp_path)
    expected = gate.references(tiny.weights, shape.inputs, [FRAMES])[FRAMES]
    candidate = peer.build(shape)
    audio = candidate.audio()
    assert audio.dtype == np.float32
    assert candidate.precision == peer.precision
    assert candidate.form == "published"
    error = gate.audio_error(audio, expected, shape.inputs.noise.shape)
    assert error <= gate.bar(peer.precision, expected.fp32_error)
    first = audio.copy()
    candidate.call()
    assert np.array_equal(audio, first)  # a copy, not the runtime's own buffer
    assert np.float64(1e-308) / 1e10 > 0  # subnormals in this thread are as they were


def test_both_devices_have_peers_with_names_of_their_own():
    for device in ("cpu", "cuda"):
        keys = [peer.key for peer in peers.known(device)]
        assert len(set(keys)) == len(keys)
        assert {peer.precision for peer in peers.known(device)} <= {"fp32", "tf32", "fp16", "bf16"}


def test_peers_are_chosen_by_name(monkeypatch):
    monkeypatch.setattr(peers, "obstacle", lambda peer, device: None)
    assert peers.choose("none", "cpu") == ([], [])
    every, notes = peers.choose("all", "cuda")
    assert [p.key for p in every] == [
        "pytorch-fp32",
        "pytorch-tf32",
        "pytorch-fp16",
        "graph",
        "compile",
    ]
    assert notes == []
    assert [p.key for p in peers.choose("compile, graph,compile", "cuda")[0]] == [
        "compile",
        "graph",
    ]


@pytest.mark.parametrize("wanted", ["abacus", "pytorch,abacus", "", "all,pytorch", "compile"])
def test_an_unknown_peer_is_refused_with_the_names_that_exist(wanted):
    with pytest.raises(InputError, match="openvino") as error:
        peers.choose(wanted, "cpu")
    assert "--peers" in str(error.value)


def test_a_peer_that_is_not_installed_is_left_out_of_all_and_refused_by_name(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "openvino" else real(name)
    )
    found, notes = peers.choose("all", "cpu")
    assert not [peer for peer in found if peer.key.startswith("openvino")]
    assert [note for note in notes if "openvino" in note and "pip install" in note]
    with pytest.raises(InputError, match=r"pip install 'fastglow\[bench\]'"):
        peers.choose("openvino", "cpu")


def test_bf16_peers_need_the_processors_instructions(monkeypatch):
    monkeypatch.setenv("FASTGLOW_CPU", "avx2")
    from fastglow.engines.cpu.jit import host

    host.cache_clear()
    try:
        with pytest.raises(InputError, match="BF16"):
            peers.choose("pytorch-bf16", "cpu")
    finally:
        monkeypatch.undo()
        host.cache_clear()
