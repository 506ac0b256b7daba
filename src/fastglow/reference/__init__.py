"""The published network in plain PyTorch: the oracle for every engine and the base of training."""

from fastglow.reference.waveglow import Likelihood, WaveGlow

__all__ = ["Likelihood", "WaveGlow"]
