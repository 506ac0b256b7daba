"""The order of launches where one of them does all flows, without a GPU that has such a kernel."""

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fastglow.config import WNConfig
from fastglow.plan import Plan

import interpreter
from models import TINY, random_input, random_weights

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="Triton is not installed")
if not torch.cuda.is_available():
    interpreter.install()

from fastglow.engines.cuda import engine as engine_module
from fastglow.engines.cuda.launches import launches
from fastglow.engines.cuda.layers import Buffers, Call, TritonLayers
from fastglow.engines.cuda.pack import PackedFlow, Packer

CONFIG = replace(TINY, hop_length=16, upsample_kernel=64, wn=WNConfig(n_layers=2, n_channels=16))


class AllAtOnce(TritonLayers):
    """One call for all layers and the coupling between flows, from planes of its own."""

    def __init__(self, packer: Packer, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(packer.products)
        self._packer = packer

    def together(self, flows: Sequence[PackedFlow], buffers: Buffers) -> tuple[Tensor, Call]:
        each = launches(self._packer, flows, TritonLayers(self._packer.products), buffers, 1)
        calls = [launch.call for launch in each if launch.name in ("layer", "coupling")]
        source = torch.full_like(buffers.planes, torch.nan)

        def run() -> None:
            buffers.planes.copy_(source)
            for call in calls[:-1]:  # the last coupling is left to do
                call()

        return source, run


def test_a_launch_of_all_flows_has_the_audio_and_the_cost_of_theirs(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(random_weights(CONFIG), "phases")
    mel, z = (a.astype(np.float32) for a in random_input(CONFIG, 9, rows=2))
    apart = engine_module.CudaEngine(plan, precision="fp32", device=device)
    monkeypatch.setattr(engine_module, "choose_layers", AllAtOnce)
    together = engine_module.CudaEngine(plan, precision="fp32", device=device)
    for lengths in ([9, 4], [7, 9]):  # the second finds planes as the first left them
        expected = apart.infer(mel, z, lengths)
        np.testing.assert_array_equal(together.infer(mel, z, lengths), expected)
    listed, whole = apart.kernels(9, 2), together.kernels(9, 2)
    names = ["frames", "spread", "prepare", "layers", "coupling", "collect"]
    assert [launch.name for launch in whole] == names
    for cost in ("flop", "bytes"):
        sums = [sum(getattr(launch, cost) for launch in each) for each in (listed, whole)]
        assert sums[0] == pytest.approx(sums[1], rel=1e-12)
