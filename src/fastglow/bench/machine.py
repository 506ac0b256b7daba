"""What a figure depends on: processor, GPU, versions, commit, environment switches.

Nothing here names a host, a user or a path.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import torch

from fastglow import __version__
from fastglow.engines.cpu.jit import host
from fastglow.engines.cpu.threads import available_threads

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("numpy", "llvmlite", "torch", "triton", "onnx", "onnxruntime", "openvino")
SWITCHES = (
    "FASTGLOW_CPU",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "OMP_PROC_BIND",
    "GOMP_SPINCOUNT",
    "KMP_BLOCKTIME",
    "KMP_AFFINITY",
    "MKL_NUM_THREADS",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "OPENBLAS_NUM_THREADS",
    "CUDA_LAUNCH_BLOCKING",
    "NVIDIA_TF32_OVERRIDE",
    "PYTORCH_CUDA_ALLOC_CONF",
)


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def huge_pages() -> str:
    """When the kernel backs memory with huge pages, for example "madvise"."""
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return "unknown"
    found = re.search(r"\[(\w+)\]", text)
    return found.group(1) if found else "unknown"


def commit() -> dict[str, Any]:
    """The commit that runs, and whether files under src/ differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() == ROOT:  # else somebody else's
            changed = git("status", "--porcelain", "--", "src")
            return {"commit": git("rev-parse", "--short=12", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        pass
    return {"commit": "unknown", "dirty": None}


def versions() -> dict[str, str]:
    """fastglow, Python, LLVM, and every runtime that is installed."""
    found = {"fastglow": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    found["LLVM"] = ".".join(map(str, llvm.llvm_version_info))
    if torch.version.cuda:
        found["CUDA"] = torch.version.cuda
    return found


def gpu() -> dict[str, Any]:
    """The GPU, its driver and its limits."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    fields = ("driver_version", "power.limit", "clocks.max.sm", "clocks.max.memory")
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
        values = [value.strip() for value in shown.stdout.splitlines()[0].split(",")]
    except (OSError, subprocess.SubprocessError, IndexError):
        values = ["unknown"] * len(fields)
    return {
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "gpu_memory_bytes": properties.total_memory,
        **dict(zip(fields, values, strict=False)),
    }


def describe(device: str, threads: int) -> dict[str, Any]:
    """Everything that belongs at the head of a result."""
    target = host()
    return {
        "machine": {
            **(gpu() if device == "cuda" else {}),
            "processor": processor(),
            "target": target.name or "baseline",
            "lanes": target.shape("fp32").lanes,
            "cores_available": available_threads(),
            "threads_used": threads,
            "huge_pages": huge_pages(),
            "system": f"{platform.system()} {platform.machine()}",
            "load_average": [round(x, 2) for x in os.getloadavg()]
            if hasattr(os, "getloadavg")
            else [],
        },
        "versions": versions(),
        **commit(),
        "environment": {name: os.environ[name] for name in SWITCHES if name in os.environ},
    }
