"""What differs between measuring on a CPU and on a GPU: clocks, memory, ceilings."""

from __future__ import annotations

import ctypes
import gc
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch

from fastglow.bench.rounds import Call, host_clock, interleave
from fastglow.engines.cpu.threads import available_threads

Result = TypeVar("Result")
CEILING_RUNS = 10
CPU_SIZE = 2048  # of the square products that give a CPU's ceiling: 0.04 s on two cores
COPY_BYTES = 1 << 28  # larger than any cache


class Device(Protocol):
    """A place to measure on.

    Attributes:
        name: "cpu" or "cuda".
        precisions: What fastglow may be asked for there, the default first.
        settle: Seconds of rest before a timed call.
        threads: CPU threads of every candidate.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def precisions(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def settle(self) -> float: ...  # noqa: D102

    @property
    def threads(self) -> int: ...  # noqa: D102

    def clock(self, call: Call) -> float:
        """Seconds of one call, its work on the device included."""
        ...

    def clock_kernel(self, launch: Call) -> float:
        """Seconds of one launch of a short kernel, the launch itself left out."""
        ...

    def allocated(self) -> int | None:
        """Bytes in use now; None where that cannot be told."""
        ...

    def reset_peak(self) -> None:
        """Begin a new measurement of :meth:`peak`."""
        ...

    def peak(self) -> int | None:
        """The most bytes in use since :meth:`reset_peak`."""
        ...

    def release(self) -> None:
        """Give back the memory of candidates that are gone."""
        ...

    def ceiling(self, precision: str) -> float:
        """FLOP/s of a large matrix product."""
        ...

    def bandwidth(self) -> float:
        """Bytes a second of a large copy, read and written."""
        ...


class CpuDevice:
    """The processor; memory is the process's resident set."""

    name = "cpu"
    precisions: tuple[str, ...] = ("fp32", "bf16", "int8")
    settle = 0.05  # a runtime's threads may still spin when it returns
    _STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def __init__(self, threads: int | None = None) -> None:
        """Hold PyTorch to as many threads as the candidates get."""
        self.threads = threads or available_threads()
        torch.set_num_threads(self.threads)
        library = ctypes.CDLL(None) if os.name == "posix" else None
        self._trim = getattr(library, "malloc_trim", None)

    def clock(self, call: Call) -> float:
        """See :class:`Device`."""
        return host_clock(call)

    def clock_kernel(self, launch: Call) -> float:
        """See :class:`Device`."""
        return host_clock(launch)

    def allocated(self) -> int | None:
        """See :class:`Device`."""
        if self._trim:  # glibc keeps what was freed, and the next candidate would seem free
            self._trim(0)
        return self._status("VmRSS")

    def reset_peak(self) -> None:
        """See :class:`Device`."""
        try:
            self._CLEAR.write_text("5")
        except OSError:
            self._STATUS = Path("/dev/null")  # a peak that cannot be reset says nothing

    def peak(self) -> int | None:
        """See :class:`Device`."""
        return self._status("VmHWM")

    def _status(self, name: str) -> int | None:
        try:
            found = re.search(rf"^{name}:\s+(\d+) kB", self._STATUS.read_text(), re.MULTILINE)
        except OSError:
            return None
        return int(found.group(1)) * 1024 if found else None

    def release(self) -> None:
        """See :class:`Device`."""
        gc.collect()

    def ceiling(self, precision: str) -> float:
        """The fastest run of three libraries, as each lacks kernels for some processor.

        The fastest and not the median: a ceiling that a busy neighbour lowers is none.
        """
        n, dtype = CPU_SIZE, torch.bfloat16 if precision == "bf16" else torch.float32
        if precision == "int8":
            bytes_ = torch.randint(-127, 128, (n, n), dtype=torch.int8)
            timing = interleave({0: lambda: torch._int_mm(bytes_, bytes_)}, CEILING_RUNS)[0]
            return 2.0 * n**3 / timing.quantile(0)
        square = torch.randn(n, n).to(dtype)
        signal = torch.randn(1, n // 2, 2 * n).to(dtype)
        filters = torch.randn(n // 2, n // 2, 3).to(dtype)
        calls: dict[str, tuple[float, Call]] = {
            "torch": (2.0 * n**3, lambda: square @ square),
            "oneDNN": (3.0 * n**3, lambda: torch.nn.functional.conv1d(signal, filters, padding=1)),
        }
        if precision == "fp32" and self.threads >= available_threads():  # it uses all cores
            array = np.ones((n, n), np.float32)
            calls["numpy"] = 2.0 * n**3, lambda: array @ array
        with torch.inference_mode():
            timings = interleave(
                {name: call for name, (_, call) in calls.items()},
                CEILING_RUNS,
                settle=self.settle,
            )
        return max(calls[name][0] / timing.quantile(0) for name, timing in timings.items())

    def bandwidth(self) -> float:
        """See :class:`Device`."""
        source = np.ones(COPY_BYTES, np.uint8)
        target = np.zeros_like(source)
        timing = interleave({0: lambda: np.copyto(target, source)}, CEILING_RUNS)[0]
        return 2 * COPY_BYTES / timing.quantile(0.5)


class Meter:
    """The memory of one candidate among others: what it holds, and the most that a call took."""

    def __init__(self, device: Device) -> None:
        """Begin with nothing held."""
        self.device, self.held = device, 0

    def measure(self, call: Callable[[], Result]) -> tuple[Result, int | None]:
        """A call's result and the most bytes that this candidate used during it."""
        before = self.device.allocated()
        self.device.reset_peak()
        result = call()
        peak, after = self.device.peak(), self.device.allocated()
        if before is None or peak is None or after is None:
            return result, None
        used = self.held + max(0, peak - before)
        self.held += max(0, after - before)
        return result, used
