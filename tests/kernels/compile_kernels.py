"""Compile kernels for architectures without a GPU and print what ptxas made of them as JSON.

Run as a program, because a process that interprets Triton cannot compile:
``python compile_kernels.py NAME...``, see ``CASES``; all without arguments.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastglow.kernels import coupling, gate, latent, residual
from fastglow.kernels.common import Products

POINTERS = {"fp16": "*fp16", "bf16": "*bf16", "tf32": "*fp32", "fp32": "*fp32"}
LAUNCH = ("num_warps", "num_stages", "maxnreg", "launch_pdl")
Build = Callable[[int], dict[str, Any]]


def build(kernel: Any, types: dict[str, str], options: dict[str, Any], target: int) -> Any:
    """Compile as a launch with aligned tensors, and a phase stride that 16 divides, would."""
    constants = {k: v for k, v in options.items() if k not in LAUNCH}
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else types[n] for n in names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, n in enumerate(names)
        if signature[n][0] == "*" or n == "MEL_PHASE"
    }
    values = {(names.index(n),): value for n, value in constants.items()}
    source = ASTSource(kernel, signature=signature, constexprs=values, attrs=aligned)
    launch = {k: v for k, v in options.items() if k in LAUNCH and v is not None}
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=launch)


def report(compiled: Any) -> dict[str, Any]:
    """Registers, stack and shared memory in bytes, and the kinds of matrix instruction."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [tools / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    ptx = compiled.asm["ptx"]
    return {
        "registers": int(found[1]),
        "stack": int(found[2]),
        "shared": compiled.metadata.shared,
        "products": sorted(
            set(re.findall(r"\b(wgmma\.mma_async|tcgen05\.mma|mma\.sync)", ptx))
        ),
        "asynchronous copies": len(re.findall(r"cp\.async\.c[ag]\.shared", ptx)),
    }  # fmt: skip


def gate_case(channels: int, places: int, products: Products, layer: int = 1) -> Build:
    def make(target: int) -> Any:
        pointer, inputs = POINTERS[products], channels if layer else 64
        shapes = (32, places, inputs), (2 * channels, 3 * inputs), (32, 2 * channels, 320)
        options = gate.options(*shapes, 80, products, target)
        types = dict.fromkeys(("x", "weight", "cond", "mel", "acts"), pointer)
        types |= dict.fromkeys(("N", "dilation", "lift", "MEL_PHASE"), "i32") | {"bias": "*fp32"}
        return build(gate.gate_kernel, types, options, target)

    return make


def residual_case(channels: int, products: Products, width: int = 0, last: bool = False) -> Build:
    def make(target: int) -> Any:
        options = residual.options(channels, 8, width, width > 0, last, products, target)
        names = ("acts", "x", "weight", "start", "output", "x_next")
        types = dict.fromkeys(names, POINTERS[products])
        types |= dict.fromkeys(("bias", "mask", "out"), "*fp32") | {"N": "i32"}
        return build(residual.residual_kernel, types, options, target)

    return make


def coupling_case(
    channels: int, following: int, products: Products, shift: int = 0, kept: int = 0
) -> Build:
    def make(target: int) -> Any:
        options = coupling.options(
            (1, 32, triton.cdiv(channels, 8) * 8, 860),
            8,
            64,
            channels,
            False,
            following,
            False,
            products,
            target,
            shift=shift,
            kept=kept,
        )
        names = ("out", "output_bias", "inverse", "planes", "after", "mask")
        types = dict.fromkeys(names, "*fp32") | {"given": POINTERS[products], "N": "i32"}
        return build(coupling.coupling_kernel, types, options, target)

    return make


def prepare_case(target: int) -> Any:
    types = {"planes": "*fp32", "mask": "*fp32", "given": "*fp16", "N": "i32"}
    options = {
        "G": 8,
        "W": 64,
        "FIRST": 4,
        "HALF": 2,
        "BN": coupling.PLACES,
        "TF32": False,
        "num_warps": 2,
    }
    return build(coupling.prepare_kernel, types, options, target)


def latent_case(kernel: Any) -> Build:
    def make(target: int) -> Any:
        types = {"request": "*i64", "planes": "*fp32", "N": "i32"}
        return build(kernel, types, latent.options(256), target)

    return make


def frames_case(target: int) -> Any:
    types = {"request": "*i64", "out": "*fp16", "N": "i32", "TOTAL": "i32"}
    return build(latent.frames_kernel, types, latent.frames_options(80, 80, 256, 3, "fp16"), target)


SHORT, LONG = 96, 896  # places of about 1 s and 10 s
CASES: dict[str, Build] = {
    **{f"gate {c} {n}": gate_case(c, n, "fp16") for c in (64, 256, 512) for n in (SHORT, LONG)},
    "gate 256 896 first": gate_case(256, LONG, "fp16", layer=0),
    "gate 256 896 bf16": gate_case(256, LONG, "bf16"),
    "gate 256 896 tf32": gate_case(256, LONG, "tf32"),
    "gate 256 896 fp32": gate_case(256, LONG, "fp32"),
    "gate 256 96 fp32": gate_case(256, SHORT, "fp32"),
    **{f"residual {c}": residual_case(c, "fp16") for c in (64, 256, 512)},
    "residual 256 first": residual_case(256, "fp16", width=64),
    "residual 256 last": residual_case(256, "fp16", last=True),
    "residual 256 tf32": residual_case(256, "tf32"),
    "residual 256 fp32": residual_case(256, "fp32"),
    "coupling 8 8": coupling_case(8, 8, "fp16"),
    "coupling 8 8 tf32": coupling_case(8, 8, "tf32"),
    "coupling 4 0": coupling_case(4, 0, "fp16"),
    "coupling of a stream": coupling_case(4, 6, "fp16", 8, 16),
    "prepare": prepare_case,
    "spread": latent_case(latent.spread_kernel),
    "collect": latent_case(latent.collect_kernel),
    "frames": frames_case,
}
TARGETS = (80, 86, 89, 90, 100)


def one(job: tuple[str, int]) -> tuple[str, int, dict[str, Any]]:
    name, target = job
    return name, target, report(CASES[name](target))


def jobs(arguments: list[str]) -> Iterator[tuple[str, int]]:
    """``NAME@80,90``, or ``NAME`` for all architectures."""
    for argument in arguments or CASES:
        name, _, targets = argument.partition("@")
        for target in targets.split(",") if targets else TARGETS:
            yield name, int(target)


if __name__ == "__main__":
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(one, jobs(sys.argv[1:])))
    json.dump(found, sys.stdout)
