"""Whether this machine has a GPU that the engine can use, found out without importing PyTorch.

The driver's own library answers within milliseconds; importing PyTorch takes a second or two,
which a machine without a GPU must not pay for ``device="auto"``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from dataclasses import dataclass

OLDEST = (8, 0)  # compute capability: bfloat16, asynchronous copies
MODULES = ("torch", "triton")
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


class NoGpuError(Exception):
    """Why the engine cannot run here, and what to install or check."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """What the driver says of one GPU.

    Attributes:
        name: For example "NVIDIA H100 80GB HBM3".
        capability: Compute capability, for example (9, 0).
        memory: Bytes in all.
    """

    name: str
    capability: tuple[int, int]
    memory: int


def find(index: int = 0, *, ask_torch: bool = True) -> Gpu:
    """The GPU of that index, if the engine can use it.

    Args:
        index: As the driver counts.
        ask_torch: Import PyTorch to ask it, too; otherwise who loads the engine finds out.

    Raises:
        NoGpuError: There is none, it is too old, or software is missing.
    """
    found = visible()
    if not 0 <= index < len(found):
        raise NoGpuError(f"there is no GPU {index}: the driver shows {len(found)}")
    gpu = found[index]
    if gpu.capability < OLDEST:
        have, need = (".".join(map(str, pair)) for pair in (gpu.capability, OLDEST))
        raise NoGpuError(
            f"{gpu.name} has compute capability {have}; fastglow needs {need} or newer "
            "(Ampere, 2020)"
        )
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise NoGpuError(f"{' and '.join(missing)} not installed: pip install 'fastglow[cuda]'")
    if ask_torch:
        _ask_torch(gpu)
    return gpu


def _ask_torch(gpu: Gpu) -> None:
    """Raise if PyTorch cannot use it."""
    try:
        import torch
    except (ImportError, OSError) as error:  # a shared library is missing, say
        raise NoGpuError(f"PyTorch cannot be ask_torch: {error}") from None
    if not torch.cuda.is_available():
        raise NoGpuError(
            f"PyTorch {torch.__version__} cannot use {gpu.name}: it was built without CUDA or "
            "for a newer driver; update the NVIDIA driver or install another build "
            "(https://pytorch.org/get-started)"
        )


def visible() -> list[Gpu]:
    """The GPUs that the driver shows to this process.

    Raises:
        NoGpuError: There is no driver, it does not start, or it shows none.
    """
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        raise NoGpuError(
            f"no NVIDIA driver ({name} cannot be loaded); install it, and check that nvidia-smi "
            "lists a GPU"
        ) from None
    status, count = driver.cuInit(0), ctypes.c_int(0)
    if status in (0, _NO_DEVICE):
        status = 0 if status else driver.cuDeviceGetCount(ctypes.byref(count))
    if status:
        raise NoGpuError(
            f"the NVIDIA driver does not start (CUDA error {status}); check that nvidia-smi works"
        )
    if not count.value:
        limit = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = f" (CUDA_VISIBLE_DEVICES is {limit!r})" if limit is not None else ""
        raise NoGpuError(f"the NVIDIA driver shows no GPU{why}; check nvidia-smi")
    return [_gpu(driver, index) for index in range(count.value)]


def _gpu(driver: ctypes.CDLL, index: int) -> Gpu:
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t(0)
    handle, major, minor = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    driver.cuDeviceGet(ctypes.byref(handle), index)
    driver.cuDeviceGetName(name, len(name), handle)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, handle)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, handle)
    return Gpu(name.value.decode(errors="replace"), (major.value, minor.value), memory.value)
