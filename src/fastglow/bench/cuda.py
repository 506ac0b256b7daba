"""Measuring on an NVIDIA GPU: CUDA events, PyTorch's allocator, CUDA graphs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

from fastglow.bench.devices import CEILING_RUNS, COPY_BYTES
from fastglow.bench.rounds import Call, interleave
from fastglow.engines.cpu.threads import available_threads
from fastglow.errors import InputError

Result = TypeVar("Result")
DEVICE = "cuda"
SIZE = 8192  # of the square products that give the ceilings
LAUNCHES = 20  # of a kernel in one CUDA graph, so that launching costs nothing
DTYPES = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "tf32": torch.float32,
    "fp32": torch.float32,
}


class CudaDevice:
    """The GPU that PyTorch uses by default; memory is what its allocator hands out."""

    name = "cuda"
    precisions: tuple[str, ...] = ("fp16", "bf16", "tf32", "fp32")
    settle = 0.0

    def __init__(self) -> None:
        """Check that there is a GPU.

        Raises:
            InputError: There is none.
        """
        if not torch.cuda.is_available():
            raise InputError(
                f"--device cuda: PyTorch {torch.__version__} finds no NVIDIA GPU; check "
                "nvidia-smi and that this PyTorch was built for CUDA, or use --device cpu"
            )
        self.threads = available_threads()

    def clock(self, call: Call) -> float:
        """Seconds between two events around one call."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        call()
        end.record()
        end.synchronize()
        milliseconds: float = begin.elapsed_time(end)
        return milliseconds / 1e3

    def clock_kernel(self, launch: Call) -> float:
        """Median of a CUDA graph of launches, for each of them."""

        def several() -> None:
            for _ in range(LAUNCHES):
                launch()

        timing = interleave({0: Graph(several)}, CEILING_RUNS, self.clock)[0]
        return timing.quantile(0.5) / LAUNCHES

    def allocated(self) -> int:
        """See :class:`fastglow.bench.devices.Device`."""
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    def reset_peak(self) -> None:
        """See :class:`fastglow.bench.devices.Device`."""
        torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        """See :class:`fastglow.bench.devices.Device`."""
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()

    def release(self) -> None:
        """See :class:`fastglow.bench.devices.Device`."""
        gc.collect()
        torch.cuda.empty_cache()

    def ceiling(self, precision: str) -> float:
        """What cuBLAS does at 8192 x 8192 x 8192."""
        a, b = (torch.randn(SIZE, SIZE, device=DEVICE).to(DTYPES[precision]) for _ in range(2))
        with tf32(precision == "tf32"):
            timing = interleave({0: lambda: a @ b}, CEILING_RUNS, self.clock)[0]
        return 2.0 * SIZE**3 / timing.quantile(0.5)

    def bandwidth(self) -> float:
        """See :class:`fastglow.bench.devices.Device`."""
        source = torch.ones(4 * COPY_BYTES, dtype=torch.uint8, device=DEVICE)
        target = torch.empty_like(source)
        timing = interleave({0: lambda: target.copy_(source)}, CEILING_RUNS, self.clock)[0]
        return 2 * source.numel() / timing.quantile(0.5)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 products of cuBLAS and cuDNN may round their operands to tf32."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


class Graph(Generic[Result]):
    """A call as one CUDA graph: warmed up and captured when first called, then replayed.

    The result lies in the graph's memory and is overwritten by the next call.
    """

    def __init__(self, call: Callable[[], Result]) -> None:
        """Remember the call; its inputs must stay where they are."""
        self._call = call
        self._captured: tuple[torch.cuda.CUDAGraph, Result] | None = None

    def __call__(self) -> Result:
        """Replay, after capturing if need be."""
        if self._captured is None:
            self._captured = self._capture()
        graph, result = self._captured
        graph.replay()
        return result

    def _capture(self) -> tuple[torch.cuda.CUDAGraph, Result]:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._call()
        return graph, result
