"""A whole flow in one launch for sm_90: compiled everywhere, run where there is such a GPU."""

import importlib
from pathlib import Path

import pytest
import torch
from test_hopper import ON_HOPPER, machine_code, problem

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")
hopper = importlib.import_module("fastglow.kernels.hopper")
hopper_flow = importlib.import_module("fastglow.kernels.hopper_flow")
nvrtc = importlib.import_module("fastglow.kernels.nvrtc")
sm90 = importlib.import_module("fastglow.kernels.sm90")
FlowShape = hopper_flow.FlowShape
SIZES = [(c, width) for c, widths in hopper_flow.WIDTHS.items() for width in widths]


def shapes() -> list[object]:
    out = [FlowShape(c, width, 8, 80, 320, bf16=False) for c, width in SIZES]
    few = [(c, count) for c in (64, 256) for count in (1, 2)]
    return out + [FlowShape(c, 32, count, 80, 320, bf16=True) for c, count in few]


@pytest.mark.parametrize("shape", shapes(), ids=str)
def test_compiles_to_tensor_core_code_that_stays_in_registers(
    shape: object, tmp_path: Path
) -> None:
    code, report = nvrtc._compile(hopper_flow.source(shape), sm90.ARCHITECTURE)
    assert "C75" not in report  # wgmma made to wait for one another
    assert "0 bytes spill stores, 0 bytes spill loads" in report
    assert shape.shared_bytes + 1024 <= sm90.SHARED  # type: ignore[attr-defined]
    lines = machine_code(code, tmp_path)
    assert any("HGMMA" in line for line in lines)
    assert any("UTMALDG" in line for line in lines)


def test_models_of_80_bands_and_up_to_256_channels_have_it() -> None:
    for channels in (64, 128, 256):
        assert hopper_flow.supported(channels, 64, 3, 80, 320)
    assert not hopper_flow.supported(512, 64, 3, 80, 320)  # 256 blocks
    assert not hopper_flow.supported(64, 128, 3, 80, 320)  # a group of more than 40
    assert not hopper_flow.supported(64, 64, 5, 80, 320)
    assert not hopper_flow.supported(64, 64, 3, 72, 320)  # 16 columns of two frames


@pytest.mark.gpu
@pytest.mark.skipif(not ON_HOPPER, reason="needs an H100 or H200")
class TestOnHopper:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("places", [8, 88, 96, 104, 128])
    @pytest.mark.parametrize("phases", [4, 32])
    @pytest.mark.parametrize("channels", [64, 128, 256])
    def test_has_the_bits_of_the_layers_one_by_one(
        self, channels: int, phases: int, places: int, dtype: torch.dtype
    ) -> None:
        self.compare(channels, phases, places, dtype, count=8, runs=3)

    @pytest.mark.parametrize(("channels", "width"), SIZES)
    def test_every_width_has_them(self, channels: int, width: int) -> None:
        shape = FlowShape(channels, width, 8, 80, 320, bf16=False)
        for places in (width - 8, 2 * width + 8):
            self.compare(channels, 4, places, torch.float16, count=8, runs=3, shape=shape)

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_flows_of_few_layers(self, count: int) -> None:
        self.compare(256, 32, 88, torch.float16, count=count, runs=2)

    def test_many_tiles_of_a_phase_wait_for_their_neighbours(self) -> None:
        self.compare(64, 4, 32 * 32, torch.float16, count=8, runs=20)
        self.compare(256, 2, 16 * 32, torch.bfloat16, count=8, runs=20)

    def compare(
        self, channels: int, phases: int, places: int, dtype: torch.dtype, *, count: int, runs: int,
        shape: object = None,
    ) -> None:  # fmt: skip
        device = torch.device("cuda")
        layer = hopper.FusedLayer(channels, dtype, device)
        flow = hopper_flow.FusedFlow(channels, count, 80, 320, dtype, device)
        shape = shape or flow.shape(phases, places)
        assert shape is not None
        data = [problem(phases, channels, 64 if i == 0 else channels, places, dtype)
                for i in range(count)]  # fmt: skip
        names = ("weight", "cond", "bias", "residual", "residual_bias", "output")
        layers = [{name: found[name] for name in names} for found in data]
        first = data[0]
        streams = torch.full((2, phases, places, channels), torch.nan, device="cuda", dtype=dtype)
        expected, found = torch.full(
            (2, layer.partials, phases, 8, places), torch.nan, device="cuda"
        )
        for i, weights in enumerate(layers):
            layer.prepare(
                **weights, x=first["x"] if i == 0 else streams[i % 2], x_next=streams[1 - i % 2],
                mel=first["mel"], mel_strides=(0, 80), start=first["start"], bits=first["bits"],
                out=expected, dilation=2**i, first=i == 0, last=i == count - 1,
            )()  # fmt: skip
        launch = flow.prepare(
            shape, given=first["x"], layers=layers, start=first["start"], mel=first["mel"],
            bits=first["bits"], out=found,
        )  # fmt: skip
        for _ in range(runs):  # what is read before it is stored is not a number
            found.fill_(torch.nan)
            flow._x.fill_(torch.nan)
            launch()
            assert torch.equal(found, expected)
