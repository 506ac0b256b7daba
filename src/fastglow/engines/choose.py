"""Which engine runs a model: the device, the precision and the form of the conditioning."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from fastglow.arguments import choose
from fastglow.checkpoint import Weights
from fastglow.config import WaveGlowConfig
from fastglow.engines.base import Engine
from fastglow.engines.cuda import probe
from fastglow.errors import EngineError, InputError
from fastglow.plan import Conditioning, Plan

PRECISIONS = {"cpu": ("fp32", "bf16", "int8"), "cuda": ("fp16", "bf16", "tf32", "fp32")}
BYTES = {"fp16": 2, "bf16": 2, "tf32": 4, "fp32": 4}  # of a stored number on a GPU
CPU_LIMIT = 2_500_000_000  # bytes of float32 phase matrices: 256 channels fit, 512 do not
GPU_SHARE = 4  # phase matrices may take a quarter of a GPU's memory


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine, chosen but not loaded.

    Attributes:
        device: "cpu", "cuda" or "cuda:1", say.
        precision: One that the device's engine has.
        conditioning: The form, which rounding depends on.
        gpu: The GPU, or why there is none; empty if nobody looked.
    """

    device: str
    precision: str
    conditioning: Conditioning
    gpu: str

    def load(self, weights: Weights, threads: int | None = None) -> Engine:
        """The engine, ready to run.

        Raises:
            CheckpointError: The model has no phase matrices and they were asked for.
            EngineError: It cannot run here.
        """
        plan = Plan(weights, self.conditioning)
        precision: Any = self.precision
        if self.device == "cpu":
            from fastglow.engines.cpu import CpuEngine  # LLVM: 0.1 s that `--help` need not wait

            return CpuEngine(plan, precision=precision, threads=threads)
        from fastglow.engines.cuda.engine import CudaEngine

        return CudaEngine(plan, precision=precision, device=self.device)


def choose_engine(
    config: WaveGlowConfig,
    device: str = "auto",
    precision: str = "auto",
    conditioning: Conditioning | Literal["auto"] = "auto",
    *,
    ask_torch: bool = True,
) -> Choice:
    """Choose what was left open; the same answer on every machine of a kind.

    Args:
        config: The model.
        device: "auto" is a GPU that can be used, else the CPU.
        precision: "auto" is fp16 on a GPU and fp32 on a CPU.
        conditioning: "auto" is the phase matrices where they exist and are not too large: 2.5 GB
            on a CPU, a quarter of the memory of a GPU.
        ask_torch: Import PyTorch, seconds, to ask whether it can use the GPU.

    Raises:
        InputError: There is no such device, precision or form.
        EngineError: A GPU was asked for and cannot be used.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", device):
        choose("device", device, ("auto", "cpu", "cuda"))
    choose("conditioning", conditioning, ("auto", "phases", "published"))
    choose("precision", precision, ("auto", *dict.fromkeys(chain(*PRECISIONS.values()))))
    found, gpu = (None, "") if device == "cpu" else _look(device, ask_torch)
    kind = "cuda" if found else "cpu"
    if precision != "auto" and precision not in PRECISIONS[kind]:
        why = f"; no GPU is used: {gpu}" if gpu else ""
        raise InputError(
            f"precision={precision!r}: on this device there are {', '.join(PRECISIONS[kind])}{why}"
        )
    precision = PRECISIONS[kind][0] if precision == "auto" else precision
    if conditioning == "auto":
        limit = found.memory / GPU_SHARE if found else CPU_LIMIT
        fits = phase_numbers(config) * (BYTES[precision] if found else 4) <= limit
        conditioning = "phases" if config.has_phases and fits else "published"
    place = "cpu" if not found else "cuda" if device == "auto" else device
    return Choice(place, precision, conditioning, gpu)


def _look(device: str, ask_torch: bool) -> tuple[probe.Gpu | None, str]:
    """The GPU and its name, or None and why.

    Raises:
        EngineError: It cannot be used and the device is not "auto".
    """
    try:
        gpu = probe.find(int(device.partition(":")[2] or 0), ask_torch=ask_torch)
    except probe.NoGpuError as error:
        if device == "auto":
            return None, str(error)
        raise EngineError(f"device={device!r}: {error}; device='cpu' needs no GPU") from None
    return gpu, gpu.name


def phase_numbers(config: WaveGlowConfig) -> int:
    """Numbers in the phase matrices of all flows."""
    wn = config.wn
    rows = config.n_flows * wn.n_layers * 2 * wn.n_channels
    return rows * config.phases * config.mel_taps * config.n_mel_channels
