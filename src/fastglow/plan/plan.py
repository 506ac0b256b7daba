"""The plan of a model: plain float64 arrays that know nothing of devices.

Axes: L layers, C channels of WN, n channels of the flow's audio, h = n/2 of them that
condition the coupling, P phases (steps a mel frame), J taps of mel frames, M mel bands,
G samples a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fastglow.checkpoint.weights import Weights
from fastglow.config import WaveGlowConfig
from fastglow.errors import CheckpointError
from fastglow.plan import rewrite

Float64 = NDArray[np.float64]
Conditioning = Literal["phases", "published"]


@dataclass(frozen=True, slots=True)
class FlowPlan:
    """One flow of the inverse pass, in float64.

    With x_0 = start * a + start_bias, acts_i = tanh(g_i[:C]) * sigmoid(g_i[C:]), where
    g_i = gate_i applied to the dilated taps of its input, plus gate_bias_i, plus the
    conditioning; x_{i+1} = x_i + residual_i acts_i + residual_bias_i;
    [b, log_s] = sum_i output_i acts_i + output_bias. Outside the utterance every input is
    zero, the channel of ones of layer 0 included.

    Attributes:
        channels: n.
        swapped: The second half conditions the first (odd flows of ``glow_old``).
        gate: [2C, kernel, h + 1] for layer 0, which reads the audio and a channel of ones,
            then [2C, kernel, C] for each further layer.
        gate_bias: [L, 2C], every constant of the conditioning included.
        conditioning: [L, 2C, P, J*M] (phases) or [L, 2C, M*G] (published).
        start: [C, h].
        start_bias: [C].
        residual: [L-1, C, C].
        residual_bias: [L-1, C].
        output: [L, n, C].
        output_bias: [n].
        inverse: [n, n], the inverse of the invertible 1x1 convolution.
    """

    channels: int
    swapped: bool
    gate: tuple[Float64, ...]
    gate_bias: Float64
    conditioning: Float64
    start: Float64
    start_bias: Float64
    residual: Float64
    residual_bias: Float64
    output: Float64
    output_bias: Float64
    inverse: Float64


class Plan:
    """The exact rewriting of a model, built flow by flow so that memory stays bounded.

    Attributes:
        weights: The model.
        conditioning: ``phases``: 320-wide phase matrices that read the mel itself;
            ``published``: the 640-wide ``cond_layer`` on the upsampled mel.
        upsample_kernel: [M*kernel, M], rows (band, sample), for ``published``; a copy, because
            it is used at every call and the checkpoint may change on disk.
    """

    def __init__(self, weights: Weights, conditioning: Conditioning = "phases") -> None:
        """Prepare the plan.

        Raises:
            CheckpointError: ``phases`` was asked for and the hop is no multiple of n_group.
        """
        config = weights.config
        if conditioning == "phases" and not config.has_phases:
            raise CheckpointError(
                f"{weights.provenance.path}: the hop ({config.hop_length}) is no multiple of "
                f"n_group ({config.n_group}), so phase matrices do not exist; "
                "use the published conditioning"
            )
        self.weights = weights
        self.conditioning = conditioning
        self._upsampling: Float64 | None = None
        self.upsample_kernel: Float64 = np.empty((0, config.n_mel_channels))
        if conditioning == "published":
            rows = weights["upsample.weight"].reshape(config.n_mel_channels, -1)
            self.upsample_kernel = np.ascontiguousarray(rows.T)

    @property
    def config(self) -> WaveGlowConfig:
        """The model's hyperparameters."""
        return self.weights.config

    @property
    def halo(self) -> int:
        """Steps on each side of a step that one flow reads."""
        wn = self.config.wn
        return (wn.kernel_size // 2) * ((1 << wn.n_layers) - 1)

    @property
    def upsampling(self) -> Float64:
        """Transposed convolution and squeeze as one matrix a phase: [M*G, P, J*M].

        Raises:
            CheckpointError: The hop is no multiple of n_group.
        """
        if self._upsampling is None:
            self._upsampling = rewrite.upsampling(self.weights)
        return self._upsampling

    def flow(self, k: int, *, composed: bool = True) -> FlowPlan:
        """The plan of flow ``k`` (the last flow runs first).

        Args:
            k: Which flow.
            composed: False leaves ``cond_layer`` [L, 2C, M*G] as published even in the phase
                form, for an engine that multiplies it with :attr:`upsampling` on its device:
                that product is nearly all of the work of a plan.
        """
        w, config = self.weights, self.config
        start, start_bias = w[f"WN.{k}.start.weight"][:, :, 0], w[f"WN.{k}.start.bias"]
        output, output_bias = rewrite.output(w, k)
        residual, residual_bias = rewrite.residual(w, k)
        phases = self.upsampling if composed and self.conditioning == "phases" else None
        return FlowPlan(
            channels=config.flow_channels[k],
            swapped=config.coupling == "alternating" and k % 2 == 1,
            gate=rewrite.gates(w, k, start, start_bias),
            gate_bias=rewrite.gate_bias(w, k),
            conditioning=rewrite.conditioning(w, k, phases),
            start=start,
            start_bias=start_bias,
            residual=residual,
            residual_bias=residual_bias,
            output=output,
            output_bias=output_bias,
            inverse=np.asarray(np.linalg.inv(w[f"convinv.{k}.conv.weight"][:, :, 0]), np.float64),
        )
