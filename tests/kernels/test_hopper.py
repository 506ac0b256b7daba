"""The fused layer for sm_90: compiled everywhere, run where there is such a GPU."""

import ctypes
import importlib
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")
hopper = importlib.import_module("fastglow.kernels.hopper")
nvrtc = importlib.import_module("fastglow.kernels.nvrtc")
sm90 = importlib.import_module("fastglow.kernels.sm90")
Shape = hopper.Shape
NEAR = 60  # lines of machine code: spilled addresses and fences stay out of the loops of products
ON_HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)


def shapes() -> list[object]:
    out = [Shape(256, width, bf16=False) for width in hopper.WIDTHS[2]]
    out += [Shape(64, width, bf16=True) for width in hopper.WIDTHS[1]]
    return [*out, Shape(512, 192, bf16=False), Shape(128, 144, bf16=False)]


def machine_code(code: bytes, place: Path) -> list[str]:
    """The instructions of a cubin, as text."""
    backend = pytest.importorskip("triton.backends.nvidia", reason="Triton is not installed")
    tool = Path(backend.__path__[0]) / "bin" / "cuobjdump"
    (place / "kernel.cubin").write_bytes(code)
    command = [str(tool), "-sass", str(place / "kernel.cubin")]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()


@pytest.mark.parametrize("shape", shapes(), ids=str)
def test_compiles_to_tensor_core_code_that_stays_in_registers(
    shape: object, tmp_path: Path
) -> None:
    code, report = nvrtc._compile(hopper.source(shape), sm90.ARCHITECTURE)
    assert "C7510" not in report  # wgmma made to wait for one another
    assert "C7512" not in report
    assert shape.shared_bytes + 1024 <= sm90.SHARED  # type: ignore[attr-defined]
    lines = machine_code(code, tmp_path)
    products = [i for i, line in enumerate(lines) if "HGMMA" in line]
    assert products
    assert any("UTMALDG" in line for line in lines)
    for i, line in enumerate(lines):
        if any(word in line for word in ("LDL", "STL", "MEMBAR.ALL.GPU")):
            assert min(abs(i - at) for at in products) > NEAR, line


def test_a_cubin_is_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTGLOW_CACHE", str(tmp_path))
    source = 'extern "C" __global__ void nothing() {}'
    code = nvrtc.compile_cubin(source, "sm_90a")
    (kept,) = (tmp_path / "fastglow").iterdir()
    assert code in kept.read_bytes()
    monkeypatch.setattr(nvrtc, "_compile", None)
    assert nvrtc.compile_cubin(source, "sm_90a") == code


def test_threads_that_share_a_kernel_launch_their_own_grids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = nvrtc.Kernel.__new__(nvrtc.Kernel)
    kernel._config, kernel._function = SimpleNamespace(), None
    kernel.cluster, kernel._lock = 1, threading.Lock()
    seen: list[tuple[int, int]] = []

    def launch(config: SimpleNamespace, *rest: object) -> tuple[int]:
        time.sleep(0.002)  # as the driver does, lets other threads run
        seen.append((config.gridDimX, int(config.hStream)))
        return (0,)

    monkeypatch.setattr(nvrtc.driver, "cuLaunchKernelEx", launch)
    argument = ctypes.create_string_buffer(64)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: kernel.launch(i, argument, 100 * i), range(1, 41)))
    assert sorted(seen) == [(i, 100 * i) for i in range(1, 41)]


def test_bindings_without_the_library_are_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nvrtc.available()

    def missing() -> None:
        raise RuntimeError("Failed to dlopen libnvrtc.so.13")

    monkeypatch.setattr(nvrtc.nvrtc, "nvrtcVersion", missing)
    assert not nvrtc.available()


def test_every_model_of_the_field_has_a_kernel_on_hopper_alone() -> None:
    for channels in (64, 128, 256, 512):
        assert hopper.supported(channels, 8, (9, 0))
        assert not hopper.supported(channels, 8, (8, 0))
        assert not hopper.supported(channels, 16, (9, 0))
        mt = Shape(channels, 96, bf16=False).tiles
        assert any(width % (4 * channels // (64 * mt)) == 0 for width in hopper.WIDTHS[mt])
    assert not hopper.supported(320, 8, (9, 0))  # its 5 blocks share no width


def problem(
    phases: int, channels: int, inputs: int, places: int, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Random tensors of realistic size; four places of a gap in the middle."""
    device, k = "cuda", 320
    mask = torch.ones(places, device=device)
    mask[places // 2 : places // 2 + 4] = 0
    powers = 1 << torch.arange(8, device=device)
    tensors = {
        "x": torch.randn(phases, places, inputs) * mask.cpu()[None, :, None],
        "weight": torch.randn(2 * channels, 3 * inputs) * 0.7 / (3 * inputs) ** 0.5,
        "cond": torch.randn(phases, 2 * channels, k) * 0.5 / k**0.5,
        "mel": torch.randn((places + 8) * 80),
        "residual": torch.randn(channels, channels) * 0.5 / channels**0.5,
        "start": torch.randn(channels, 64) / 16,
        "output": torch.randn(8, channels) / channels**0.5,
    }
    out = {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
    out["bias"] = torch.randn(2 * channels, device=device) * 0.1
    out["residual_bias"] = torch.randn(channels, device=device) * 0.1
    out["bits"] = (mask.long().view(-1, 8) * powers).sum(1).to(torch.uint8)
    return out | {"mask": mask}


@pytest.mark.gpu
@pytest.mark.skipif(not ON_HOPPER, reason="needs an H100 or H200")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("phases", [4, 48], ids=["one tile a block", "several"])
@pytest.mark.parametrize("channels", [64, 128, 256, 512])
@pytest.mark.parametrize(
    ("dilation", "first", "last"), [(1, True, False), (2, False, False), (128, False, True)]
)
def test_equals_the_references_at_every_width(
    channels: int, phases: int, dtype: torch.dtype, dilation: int, first: bool, last: bool
) -> None:
    from fastglow.kernels.gate import reference_gate
    from fastglow.kernels.residual import reference_residual

    layer = hopper.FusedLayer(channels, dtype, torch.device("cuda"))
    data = problem(phases, channels, 64 if first else channels, 328, dtype)
    mask = data.pop("mask")
    acts = reference_gate(
        data["x"], data["weight"], data["cond"], data["mel"], (0, 80), data["bias"], dilation
    )
    rounded = acts.to(dtype).double()
    start = data["start"] if first else None
    x_next, sums = reference_residual(
        rounded, data["x"], data["residual"], data["residual_bias"], data["output"], mask, start
    )
    found = []
    for shape in layer._kernels:
        x_found = torch.full((phases, 328, channels), torch.nan, device="cuda", dtype=dtype)
        out = torch.full(
            (layer.partials, phases, 8, 328), torch.nan if first else 0.0, device="cuda"
        )
        layer.prepare(
            **data, x_next=x_found, out=out, mel_strides=(0, 80), dilation=dilation,
            first=first, last=last, shape=shape,
        )()  # fmt: skip
        assert (out.sum(0) - sums).norm() <= 2e-3 * sums.norm()
        if not last:
            bar = 3e-4 if dtype == torch.float16 else 2.4e-3
            assert (x_found.double() - x_next).norm() <= bar * x_next.norm()
        found.append((out, x_found))
    assert all(torch.equal(out, found[0][0]) for out, _ in found)
    assert last or all(torch.equal(x, found[0][1]) for _, x in found)
