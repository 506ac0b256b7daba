"""The CPU engine: the plan as machine code that LLVM makes for the processor at hand."""

from fastglow.engines.cpu.engine import CpuEngine

__all__ = ["CpuEngine"]
