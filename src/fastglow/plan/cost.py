"""What a pass costs: multiply-accumulates and bytes of weights, published and rewritten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastglow.config import WaveGlowConfig

Form = Literal["published", "rewritten", "rewritten, published conditioning"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Work of one form of the network.

    Attributes:
        macs_per_step: Multiply-accumulates a step of n_group samples, all flows.
        weights: Numbers that one pass reads, all flows.
        n_group: Samples a step.
    """

    macs_per_step: int
    weights: int
    n_group: int

    @property
    def flop_per_sample(self) -> float:
        """Floating-point operations an audio sample (two a multiply-accumulate)."""
        return 2 * self.macs_per_step / self.n_group

    def bytes(self, itemsize: int) -> int:
        """Bytes of weights read in one pass, with numbers of ``itemsize`` bytes."""
        return self.weights * itemsize


def cost(config: WaveGlowConfig, form: Form) -> Cost:
    """Count the products of one form of the network (biases and gates not counted)."""
    wn, group = config.wn, config.n_group
    c, layers, kernel = wn.n_channels, wn.n_layers, wn.kernel_size
    wide, bands = config.n_mel_channels * group, config.n_mel_channels
    taps = config.mel_taps
    upsample = taps * bands * wide  # per step, once for all flows
    macs = upsample if form != "rewritten" else 0
    weights = bands * bands * config.upsample_kernel if form != "rewritten" else 0
    for n in config.flow_channels:
        half = n // 2
        cond = 2 * c * layers * (taps * bands if form == "rewritten" else wide)
        phases = config.phases if form == "rewritten" else 1
        if form == "published":
            rest = half * c + layers * kernel * c * 2 * c + (2 * layers - 1) * c * c + c * n
        else:
            first = kernel * (half + 1) * 2 * c
            rest = first + (layers - 1) * (kernel * 2 * c * c + c * c) + half * c + layers * n * c
        macs += cond + rest + n * n
        weights += cond * phases + rest + n * n
    return Cost(macs, weights, group)
