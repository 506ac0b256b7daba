"""LLVM: what the processor offers, compilation, and a cache of compiled code on disk."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import llvmlite.binding as llvm

from fastglow import __version__
from fastglow.cache import DiskCache
from fastglow.engines.cpu.driver import build_module
from fastglow.engines.cpu.ir import Shape
from fastglow.errors import EngineError

Flow = Callable[[int, int], None]
Precision = Literal["fp32", "bf16", "int8"]
DEPTHS = {"fp32": 1, "bf16": 2, "int8": 4}
NEEDS = {"bf16": "AVX-512 BF16", "int8": "AVX-512 VNNI"}


@dataclass(frozen=True, slots=True)
class Host:
    """The processor as LLVM sees it.

    Attributes:
        name: For example "znver4".
        features: LLVM's feature string.
        tile: The register tile that suits it.
        precisions: Which it multiplies in.
    """

    name: str
    features: str
    tile: Shape
    precisions: tuple[Precision, ...]

    def shape(self, precision: Precision) -> Shape:
        """The register tile for a precision.

        Raises:
            EngineError: The processor lacks it.
        """
        if precision not in self.precisions:
            raise EngineError(
                f"{precision} needs a processor with {NEEDS[precision]} (this is "
                f"{self.name or 'held back'}); use fp32"
            )
        return replace(self.tile, depth=DEPTHS[precision])


@functools.cache
def host() -> Host:
    """This machine; FASTGLOW_CPU=avx2 or baseline holds it to older instructions."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    found = dict(llvm.get_host_cpu_features())
    name = llvm.get_host_cpu_name()
    limit = os.environ.get("FASTGLOW_CPU", "native")
    if limit not in ("native", "avx2", "baseline"):
        raise EngineError(f"FASTGLOW_CPU={limit}: expected native, avx2 or baseline")
    if limit != "native":
        name = "x86-64-v3" if limit == "avx2" else ""
        found = {} if limit == "baseline" else {"avx2": True, "fma": True, "avx512f": False}
    features = ",".join(f"{'+' if on else '-'}{key}" for key, on in sorted(found.items()))
    if found.get("avx512f"):
        known: list[Precision] = ["fp32"]
        known += ["bf16"] if found.get("avx512bf16") else []
        known += ["int8"] if found.get("avx512vnni") and found.get("avx512bw") else []
        return Host(name, features, Shape(lanes=16, rows=8), tuple(known))
    if found.get("avx2") and found.get("fma"):
        return Host(name, features, Shape(lanes=8, rows=4), ("fp32",))  # 16 registers
    if found.get("neon"):
        return Host(name, features, Shape(lanes=4, rows=8), ("fp32",))
    return Host(name, features, Shape(lanes=4, rows=4, fused=False), ("fp32",))


@functools.cache
def compile_flow(kernel: int, precision: Precision) -> Flow:
    """The machine code of one flow for WN kernels of this size: flow(job, scratch).

    Raises:
        EngineError: The processor lacks the precision, or LLVM cannot make code for it.
    """
    machine = host()
    text = str(build_module(machine.shape(precision), kernel))
    version = ".".join(map(str, llvm.llvm_version_info))
    parts = (__version__, version, machine.name, machine.features, text)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    try:
        target = llvm.Target.from_default_triple().create_target_machine(
            cpu=machine.name, features=machine.features, opt=3
        )
        engine = _engine(text, target, DiskCache(f"cpu-{key}.o"))
    except RuntimeError as error:
        raise EngineError(f"LLVM cannot compile for this processor: {error}") from error
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
    function = kind(engine.get_function_address("flow"))
    function._engine = engine  # type: ignore[attr-defined]  # the code lives as long as it
    return function


def _engine(text: str, target: llvm.TargetMachine, cache: DiskCache) -> llvm.ExecutionEngine:
    code = cache.load()
    if code is None:
        module = llvm.parse_assembly(text)
        module.verify()
        builder = llvm.create_pass_builder(
            target, llvm.create_pipeline_tuning_options(speed_level=3)
        )
        builder.getModulePassManager().run(module, builder)
        code = target.emit_object(module)
        cache.save(code)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


@functools.cache
def yield_address() -> int:
    """The address of the system's function that lets another thread run."""
    if sys.platform == "win32":
        function = ctypes.windll.kernel32.SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0
