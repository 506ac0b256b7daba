"""Whole flows in one launch for sm_90: compiled everywhere, run where there is such a GPU."""

import importlib
from pathlib import Path

import pytest
import torch
from test_hopper import ON_HOPPER, machine_code

from fastglow.kernels.stacked import Stacked

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")
hopper = importlib.import_module("fastglow.kernels.hopper")
hopper_flow = importlib.import_module("fastglow.kernels.hopper_flow")
nvrtc = importlib.import_module("fastglow.kernels.nvrtc")
sm90 = importlib.import_module("fastglow.kernels.sm90")
coupling = importlib.import_module("fastglow.kernels.coupling")
FlowShape = hopper_flow.FlowShape
SIZES = [(c, width) for c, widths in hopper_flow.WIDTHS.items() for width in widths]


def shapes() -> list[object]:
    out = [FlowShape(c, width, 8, 80, 320, bf16=False) for c, width in SIZES]
    few = [(c, count) for c in (64, 256) for count in (2, 3)]
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
        assert hopper_flow.supported(channels, 64, 3, 8, 80, 320)
    assert not hopper_flow.supported(512, 64, 3, 8, 80, 320)  # 256 blocks
    assert not hopper_flow.supported(64, 128, 3, 8, 80, 320)  # a group of more than 40
    assert not hopper_flow.supported(64, 64, 5, 8, 80, 320)
    assert not hopper_flow.supported(64, 64, 3, 1, 80, 320)
    assert not hopper_flow.supported(64, 64, 3, 8, 72, 320)  # 16 columns of two frames


def model(
    kinds: list[tuple[int, bool]], layers: int, phases: int, channels: int, dtype: torch.dtype
) -> Stacked:
    """Random flows of realistic size, of so many channels, with the halves swapped or not."""
    weights = Stacked.zeros(
        len(kinds), layers, channels=channels, taps=3, given=64, phases=phases, window=320, rows=8,
        dtype=dtype, device=torch.device("cuda"),
    )  # fmt: skip
    sizes = {
        "gate0": 0.7 / 192**0.5,
        "gate": 0.7 / (3 * channels) ** 0.5,
        "cond": 0.5 / 320**0.5,
        "residual": 0.5 / channels**0.5,
        "start": 1 / 16,
        "output": 0.3 / channels**0.5,
        "bias": 0.1,
        "residual_bias": 0.1,
    }
    for name, size in sizes.items():
        getattr(weights, name).normal_(std=size)
    for k, (n, swapped) in enumerate(kinds):
        inverse = torch.linalg.qr(torch.randn(n, n))[0]
        weights.couple(k, torch.randn(n) * 0.1, inverse, swapped=swapped)
    return weights


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

    @pytest.mark.parametrize("count", [2, 3])
    def test_flows_of_few_layers(self, count: int) -> None:
        self.compare(256, 32, 88, torch.float16, count=count, runs=2)
        self.compare(256, 32, 88, torch.float16, count=count, runs=2, flows=3)

    def test_many_tiles_of_a_phase_wait_for_their_neighbours(self) -> None:
        for flows in (1, 4):
            self.compare(64, 4, 32 * 32, torch.float16, count=8, runs=20, flows=flows)
            self.compare(256, 2, 16 * 32, torch.bfloat16, count=8, runs=20, flows=flows)
            self.compare(256, 1, 16 * 32, torch.float16, count=8, runs=20, flows=flows)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("flows", [2, 3, 12])
    @pytest.mark.parametrize("phases", [4, 32])
    @pytest.mark.parametrize("channels", [64, 128, 256])
    def test_flows_have_the_bits_of_one_after_the_other(
        self, channels: int, phases: int, flows: int, dtype: torch.dtype
    ) -> None:
        for places in (8, 88, 128):
            self.compare(channels, phases, places, dtype, count=8, runs=5, flows=flows)

    @pytest.mark.parametrize("flows", [2, 3, 12])
    @pytest.mark.parametrize(("channels", "width"), SIZES)
    def test_every_width_couples_them(self, channels: int, width: int, flows: int) -> None:
        shape = FlowShape(channels, width, 8, 80, 320, bf16=False)
        for places in (width - 8, 2 * width + 8):
            self.compare(
                channels, 4, places, torch.float16, count=8, runs=5, shape=shape, flows=flows
            )

    def test_a_range_of_flows_and_a_smaller_group(self) -> None:
        self.compare(64, 32, 88, torch.float16, count=8, runs=3, flows=5, first=4)
        for channels in (64, 256):
            self.compare(channels, 32, 88, torch.float16, count=8, runs=3, flows=6, group=6)

    def compare(
        self, channels: int, phases: int, places: int, dtype: torch.dtype, *, count: int, runs: int,
        shape: object = None, flows: int = 1, first: int = 0, group: int = 8,
    ) -> None:  # fmt: skip
        """``flows`` of ``count`` layers, the first of them ``first`` of all, against one by one."""
        products = "fp16" if dtype == torch.float16 else "bf16"
        layer = hopper.FusedLayer(channels, dtype, torch.device("cuda"))
        kinds = [(n, (k + n // 2) % 3 == 0) for n in (4, 6, 8) if n <= group for k in range(4)]
        if first + flows < len(kinds):  # few: every n all the same
            kinds = kinds[:: len(kinds) // (first + flows)]
        weights = model(kinds[: first + flows], count, phases, channels, dtype)
        flow = hopper_flow.FusedFlow(weights, group, 80)
        shape = shape or flow.shape(phases, places)
        assert shape is not None
        mask = (torch.rand(places, device="cuda") > 0.1).float()
        mask[-3:] = 0
        powers = 1 << torch.arange(8, device="cuda")
        bits = (mask.long().view(-1, 8) * powers).sum(1).to(torch.uint8)
        mel = torch.randn((places + 8) * 80, device="cuda").to(dtype)
        noise = torch.randn(phases, group, places, device="cuda")
        given = torch.full((phases, places, 64), torch.nan, device="cuda", dtype=dtype)
        streams = torch.full((2, phases, places, channels), torch.nan, device="cuda", dtype=dtype)
        expected, out = torch.full((2, layer.partials, phases, 8, places), torch.nan, device="cuda")
        planes = noise.clone()
        steps = [{"channels": n, "swapped": swapped, "products": products}
                 for n, swapped in kinds[first : first + flows]]  # fmt: skip
        coupling.prepare(planes, mask, given, **steps[0])
        begun = given.clone()
        for k, step in enumerate(steps, first):
            for i in range(count):
                layer.prepare(
                    weight=weights.weight(k, i), cond=weights.cond[k, i], bias=weights.bias[k, i],
                    residual=weights.residual[k, i], residual_bias=weights.residual_bias[k, i],
                    output=weights.output[k, i], start=weights.start[k],
                    x=given if i == 0 else streams[i % 2], x_next=streams[1 - i % 2],
                    mel=mel, mel_strides=(0, 80), bits=bits,
                    out=expected, dilation=2**i, first=i == 0, last=i == count - 1,
                )()  # fmt: skip
            if k + 1 < first + flows:
                n, (after, after_swapped) = step["channels"], kinds[k + 1]
                coupling.coupling(
                    expected, weights.output_bias[k, :n],
                    weights.inverse[k, -n:, -n:].contiguous(), planes, mask, given, **step,
                    next_channels=after, next_swapped=after_swapped,
                )  # fmt: skip
        assert planes.isfinite().all()
        assert expected[..., mask > 0].isfinite().all()
        found = torch.empty_like(planes)
        source = flow.source(found, flows)
        launch = flow.prepare(
            shape, flows=(first, flows), given=begun, mel=mel, bits=bits, out=out, planes=found,
        )  # fmt: skip
        for _ in range(runs):  # what is read before it is stored is not a number
            for poisoned in (out, found, flow._x, flow._out, flow._planes):
                poisoned.fill_(torch.nan)
            source.copy_(noise)
            launch()
            assert torch.equal(out.view(torch.int32), expected.view(torch.int32))
            assert torch.equal(found.view(torch.int32), planes.view(torch.int32))
