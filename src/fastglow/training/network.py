"""WaveGlow arranged for training, both directions: parameters stacked, channels last.

It computes what :class:`fastglow.reference.WaveGlow` computes (the tests hold it to that), with the
skip path folded into ``end``. Each 1x1 convolution is stored as its inverse, which is all that the
inverse direction uses; the published direction and the export invert it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError
from fastglow.reference import Likelihood, WaveGlow
from fastglow.training import half
from fastglow.training.flow import FlowParameters
from fastglow.training.mixing import inverses

Products = Literal["fp32", "bf16"]


class InverseNetwork(nn.Module):
    """Noise and mel to audio, and audio and mel to latents, differentiable and fast.

    Args:
        config: Hyperparameters; the hop must be a whole number of groups and the upsampling's
            kernel a whole number of hops.

    Attributes:
        products: In what the WNs' matrices are multiplied on a CPU.

    Raises:
        InputError: The hyperparameters do not allow it.
    """

    def __init__(self, config: WaveGlowConfig) -> None:
        super().__init__()
        if not config.has_phases or config.upsample_kernel % config.hop_length:
            raise InputError(
                f"cannot train with hop {config.hop_length}, groups of {config.n_group} and an "
                f"upsampling kernel of {config.upsample_kernel}: expected whole multiples"
            )
        self.config = config
        self.products: Products = "fp32"
        mel = config.n_mel_channels
        self.upsample_weight = nn.Parameter(torch.zeros(mel, mel, config.upsample_kernel))
        self.upsample_bias = nn.Parameter(torch.zeros(mel))
        self.flows = nn.ModuleList(FlowParameters(config, n) for n in config.flow_channels)

    def parameters_of_flows(self) -> list[FlowParameters]:
        """The flows, flow 0 first."""
        return cast(list[FlowParameters], list(self.flows))

    def upsample_matrix(self) -> Tensor:
        """The upsampling as a product: [taps * n_mel, phases * n_mel * n_group]."""
        config, mel = self.config, self.config.n_mel_channels
        w = self.upsample_weight.reshape(mel, mel, -1, config.phases, config.n_group)
        return w.permute(2, 0, 3, 1, 4).reshape(-1, config.phases * mel * config.n_group)

    def neighbours(self, mel: Tensor) -> Tensor:
        """Each frame beside its predecessors: [B, n_mel, frames] to [B, frames, taps * n_mel]."""
        taps, frames = self.config.upsample_kernel // self.config.hop_length, mel.shape[2]
        padded = functional.pad(mel.transpose(1, 2), (0, 0, taps - 1, 0))
        return torch.cat([padded[:, taps - 1 - j :][:, :frames] for j in range(taps)], dim=2)

    def conditioning(self, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The squeezed, upsampled mel [B, n_mel, frames] as a product that is yet to be made.

        Returns:
            :meth:`neighbours`, :meth:`upsample_matrix`, and the bias [n_mel * n_group] of a step.
        """
        bias = self.upsample_bias.repeat_interleave(self.config.n_group)
        return self.neighbours(mel), self.upsample_matrix(), bias

    def forward(self, mel: Tensor, noise: Tensor, sigma: float | Tensor = 1.0) -> Tensor:
        """Audio from noise.

        Args:
            mel: [B, n_mel, frames].
            noise: [B, samples], standard normal, in the audio's layout.
            sigma: The noise's scale: a number, or [B, 1] for one a row.

        Returns:
            [B, samples], as ``noise``.
        """
        config, batch = self.config, noise.shape[0]
        z = (noise * sigma).reshape(batch, -1, config.n_group)
        couplings, flows = self._couplings(mel), self.parameters_of_flows()
        pending = config.n_group - config.flow_channels[-1]
        x = z[..., pending:]
        for k in reversed(range(config.n_flows)):
            kept, changed = self._split(x, k)
            b, log_s = couplings[k](kept).chunk(2, dim=-1)
            x = self._join(kept, (changed - b) * torch.exp(-log_s), k)
            x = self._mix(x, flows[k].mixing)
            if config.is_early(k):
                pending -= config.n_early_size
                x = torch.cat((z[..., pending : pending + config.n_early_size], x), dim=-1)
        return x.reshape(batch, -1)

    def latents(self, audio: Tensor, mel: Tensor) -> Likelihood:
        """The latents of audio and the terms of its likelihood; a CUDA graph can capture it.

        Args:
            audio: [B, samples], whole hops.
            mel: [B, n_mel, frames] of as many hops.

        Returns:
            What :meth:`fastglow.reference.WaveGlow.forward` returns: ``z`` [B, samples] is the
            noise that :meth:`forward` makes this audio from, ``log_s`` [B] and ``log_det``, a
            scalar, are sums.
        """
        config, batch = self.config, audio.shape[0]
        x = audio.reshape(batch, -1, config.n_group)
        steps, log_s_sum, early = x.shape[1], audio.new_zeros(batch), []
        couplings = self._couplings(mel)
        weights, log_dets = inverses([flow.mixing for flow in self.parameters_of_flows()])
        for k in range(config.n_flows):
            if config.is_early(k):
                early.append(x[..., : config.n_early_size])
                x = x[..., config.n_early_size :]
            kept, changed = self._split(self._mix(x, weights[k]), k)
            b, log_s = couplings[k](kept).chunk(2, dim=-1)
            x = self._join(kept, changed * torch.exp(log_s) + b, k)
            log_s_sum = log_s_sum + log_s.sum(dim=(1, 2))
        z = torch.cat([*early, x], dim=-1).reshape(batch, -1)
        return Likelihood(z, log_s_sum, -steps * log_dets.sum())

    def _split(self, x: Tensor, flow: int) -> tuple[Tensor, Tensor]:
        """The channels that condition the others in this flow, and those others."""
        lower, upper = x.chunk(2, dim=-1)
        return (upper, lower) if self._swaps(flow) else (lower, upper)

    def _join(self, kept: Tensor, changed: Tensor, flow: int) -> Tensor:
        """The inverse of :meth:`_split`."""
        return torch.cat((changed, kept) if self._swaps(flow) else (kept, changed), dim=-1)

    def _swaps(self, flow: int) -> bool:
        return self.config.coupling == "alternating" and flow % 2 == 1

    def _couplings(self, mel: Tensor) -> list[Callable[[Tensor], Tensor]]:
        """For each flow, the function from the channels kept to ``b`` and ``log_s``."""
        if self.fused(mel):
            from fastglow.training.fused import couplings  # needs Triton

            return couplings(self.config, self.parameters_of_flows(), *self.conditioning(mel))
        if self.products == "bf16" and not mel.is_cuda:
            return half.couplings(self.config, self.parameters_of_flows(), *self.conditioning(mel))
        frames, matrix, bias = self.conditioning(mel)
        steps = frames.shape[1] * self.config.phases
        cond = (frames @ matrix).reshape(frames.shape[0], steps, -1) + bias
        return [partial(flow, cond=cond) for flow in self.parameters_of_flows()]

    def _mix(self, x: Tensor, mixing: Tensor) -> Tensor:
        if x.is_cuda:
            from fastglow.training.fused import tall_product

            return tall_product(x, mixing.T)
        return x @ mixing.T

    def fused(self, mel: Tensor) -> bool:
        """Whether the Triton kernels serve this input: CUDA, 16 to 128 channels."""
        return (
            mel.is_cuda
            and self.config.wn.n_channels in (16, 32, 64, 128)
            and self.config.n_group <= 16
        )

    @classmethod
    def from_tensors(
        cls, config: WaveGlowConfig, tensors: Mapping[str, np.ndarray | Tensor]
    ) -> InverseNetwork:
        """The network with tensors under their published names, in fp32."""
        network = cls(config)
        t = {n: torch.as_tensor(v).to(torch.float64) for n, v in tensors.items()}
        c, layers = config.wn.n_channels, range(config.wn.n_layers)
        state = {"upsample_weight": t["upsample.weight"], "upsample_bias": t["upsample.bias"]}
        for k, flow in enumerate(network.parameters_of_flows()):
            into, wn = f"flows.{k}.", f"WN.{k}."
            state[into + "mixing"] = torch.linalg.inv(t[f"convinv.{k}.conv.weight"].squeeze(-1))
            for name, source in (("start", "start"), ("cond", "cond_layer"), ("end", "end")):
                state[f"{into}{name}_weight"] = t[f"{wn}{source}.weight"].squeeze(-1).T
                state[f"{into}{name}_bias"] = t[f"{wn}{source}.bias"]
            inner = [t[f"{wn}in_layers.{i}.weight"].permute(2, 1, 0) for i in layers]
            state[into + "in_weight"] = torch.stack(inner)
            state[into + "in_bias"] = torch.stack([t[f"{wn}in_layers.{i}.bias"] for i in layers])
            weights = [t[f"{wn}res_skip_layers.{i}.weight"].squeeze(-1).T for i in layers]
            biases = [t[f"{wn}res_skip_layers.{i}.bias"] for i in layers]
            state[into + "skip_weight"] = torch.stack([w[:, -c:] for w in weights])
            state[into + "skip_bias"] = torch.stack([b[-c:] for b in biases])
            if len(layers) > 1:
                state[into + "res_weight"] = torch.stack([w[:, :c] for w in weights[:-1]])
                state[into + "res_bias"] = torch.stack([b[:c] for b in biases[:-1]])
            else:
                state[into + "res_weight"] = flow.res_weight
                state[into + "res_bias"] = flow.res_bias
        network.load_state_dict(state)
        return network

    @classmethod
    def untrained(cls, config: WaveGlowConfig) -> InverseNetwork:
        """The network as training from nothing starts it: PyTorch's defaults, ``end`` at zero."""
        return cls.from_tensors(config, WaveGlow(config).to_tensors())

    def to_tensors(self) -> dict[str, np.ndarray]:
        """fp32 arrays by published name."""
        out: dict[str, Tensor] = {
            "upsample.weight": self.upsample_weight,
            "upsample.bias": self.upsample_bias,
        }
        for k, flow in enumerate(self.parameters_of_flows()):
            inverse = flow.mixing.detach().double().cpu()
            out[f"convinv.{k}.conv.weight"] = torch.linalg.inv(inverse).unsqueeze(-1)
            for name, source in (("start", "start"), ("cond", "cond_layer"), ("end", "end")):
                weight = getattr(flow, f"{name}_weight")
                out[f"WN.{k}.{source}.weight"] = weight.T.unsqueeze(-1)
                out[f"WN.{k}.{source}.bias"] = getattr(flow, f"{name}_bias")
            for i in range(len(flow.in_weight)):
                at = f"WN.{k}.in_layers.{i}."
                out[at + "weight"], out[at + "bias"] = (
                    flow.in_weight[i].permute(2, 1, 0),
                    flow.in_bias[i],
                )
                weights, biases = [flow.skip_weight[i]], [flow.skip_bias[i]]
                if i < len(flow.res_weight):
                    weights.insert(0, flow.res_weight[i])
                    biases.insert(0, flow.res_bias[i])
                at = f"WN.{k}.res_skip_layers.{i}."
                out[at + "weight"] = torch.cat(weights, dim=1).T.unsqueeze(-1)
                out[at + "bias"] = torch.cat(biases)
        return {n: v.detach().float().cpu().contiguous().numpy() for n, v in out.items()}
