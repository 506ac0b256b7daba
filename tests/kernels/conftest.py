"""Where the kernels run: interpreted on the CPU, or, with ``-m gpu``, on a GPU."""

import importlib.util
import os

import pytest
import torch
from kernel_oracle import Target

import interpreter

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
if importlib.util.find_spec("triton") is None:
    collect_ignore_glob = ["test_kernel_*.py"]
else:
    interpreter.install()

ON_GPU = [
    pytest.param(Target("cuda", products), marks=pytest.mark.gpu)
    for products in ("fp16", "bf16", "tf32", "fp32")
]
ON_CPU = [] if torch.cuda.is_available() else [Target("cpu", p) for p in ("fp16", "bf16", "fp32")]
DEVICES = [
    *(() if torch.cuda.is_available() else ("cpu",)),
    pytest.param("cuda", marks=pytest.mark.gpu),
]


@pytest.fixture(params=[*ON_CPU, *ON_GPU], ids=str)
def target(request: pytest.FixtureRequest) -> Target:
    """A device and a precision."""
    torch.manual_seed(0)
    found: Target = request.param
    return found


@pytest.fixture(params=ON_GPU, ids=str)
def gpu_target(request: pytest.FixtureRequest) -> Target:
    """A precision on a GPU."""
    torch.manual_seed(0)
    found: Target = request.param
    return found


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """A device."""
    torch.manual_seed(0)
    found: str = request.param
    return found
