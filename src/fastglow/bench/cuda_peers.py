"""The published graph in PyTorch on a GPU: as plain users run it, and at its best.

Eager in strict float32, in tf32 and in half precision (``module.half()`` with the 1x1 convolutions
and the coupling in float32); eager fp16 as one CUDA graph; ``torch.compile`` fp16 as one CUDA
graph. The noise is an input of each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fastglow.bench import cuda
from fastglow.bench.candidates import Candidate, Shape
from fastglow.bench.cuda import DTYPES, Graph, tf32
from fastglow.bench.peers import Peer
from fastglow.bench.published import placed


def network(precision: str, shape: Shape, *, compiled: bool = False) -> Callable[[], Tensor]:
    """The published graph on inputs that lie on the GPU."""
    graph = placed(shape.graph, cuda.DEVICE, DTYPES[precision])
    inputs = shape.inputs
    mel, noise = (torch.from_numpy(a).to(cuda.DEVICE) for a in (inputs.mel, inputs.noise))
    run: Callable[[Tensor, Tensor], Tensor] = graph
    if compiled:
        torch.compiler.reset()  # or the ninth shape would silently run uncompiled
        run = torch.compile(graph, dynamic=False)

    def call() -> Tensor:
        with torch.inference_mode(), tf32(precision == "tf32"):
            return run(mel, noise)

    return call


def eager(precision: str, shape: Shape) -> Candidate:
    """PyTorch, eager."""
    begin = time.perf_counter()
    call = network(precision, shape)
    spent = time.perf_counter() - begin
    return Candidate("PyTorch", precision, "published", "eager, inference_mode", spent, call)


def graph(precision: str, shape: Shape) -> Candidate:
    """PyTorch's eager kernels, launched as one CUDA graph."""
    begin = time.perf_counter()
    call = Graph(network(precision, shape))
    spent = time.perf_counter() - begin
    return Candidate("CUDA graph", precision, "published", "eager, one CUDA graph", spent, call)


def compiled(precision: str, shape: Shape) -> Candidate:
    """What torch.compile makes of it, launched as one CUDA graph."""
    begin = time.perf_counter()
    call = Graph(network(precision, shape, compiled=True))
    spent = time.perf_counter() - begin
    settings = "torch.compile, static shapes, one CUDA graph"
    return Candidate("torch.compile", precision, "published", settings, spent, call)


PEERS = (
    Peer("pytorch-fp32", "fp32", (), partial(eager, "fp32")),
    Peer("pytorch-tf32", "tf32", (), partial(eager, "tf32")),
    Peer("pytorch-fp16", "fp16", (), partial(eager, "fp16")),
    Peer("graph", "fp16", (), partial(graph, "fp16")),
    Peer("compile", "fp16", ("triton",), partial(compiled, "fp16")),
)
