"""What the tests of the CUDA engine share."""

from __future__ import annotations

import numpy as np

from fastglow.config import WaveGlowConfig
from fastglow.plan import Plan

from models import random_weights


def engine(config: WaveGlowConfig, device: str, precision: str = "fp32", **more: object):
    from fastglow.engines.cuda.engine import CudaEngine

    form = more.pop("form", "phases" if config.has_phases else "published")
    plan = Plan(random_weights(config), form)  # type: ignore[arg-type]
    return CudaEngine(plan, precision=precision, device=device, **more)  # type: ignore[arg-type]


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
