"""WaveGlow exactly as published, in plain PyTorch and in any precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fastglow.checkpoint.weights import Weights
from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError
from fastglow.reference.wn import WN


class Likelihood(NamedTuple):
    """What the flow says of audio: log p(audio | mel) = log N(z) + log_s + log_det.

    Attributes:
        z: [B, samples], the latent in the audio's layout.
        log_s: [B], the couplings' log scales summed over flows, channels and steps.
        log_det: scalar, steps * log|det W| summed over the 1x1 convolutions.
    """

    z: Tensor
    log_s: Tensor
    log_det: Tensor

    def nll(self, sigma: float = 1.0) -> Tensor:
        """Negative log-likelihood a sample, up to a constant, latents scaled by ``sigma``.

        Returns:
            [B], in nats a sample.
        """
        prior = 0.5 * self.z.square().sum(1) / sigma**2
        return (prior - self.log_s - self.log_det) / self.z.shape[1]


class Invertible1x1(nn.Module):
    """A square channel mixing W; the parameter is named as in the published checkpoints."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 1, bias=False)
        q = torch.linalg.qr(torch.randn(channels, channels))[0]
        q[:, 0] *= torch.sign(torch.linalg.det(q))  # a proper rotation: log-det starts at 0
        self.conv.weight.data = q.unsqueeze(-1)

    @property
    def matrix(self) -> Tensor:
        """W [channels, channels]."""
        return self.conv.weight.squeeze(-1)


class WaveGlow(nn.Module):
    """The published flow: audio to latent (:meth:`forward`) and noise to audio (:meth:`infer`).

    A step of the squeezed layout holds ``n_group`` samples: channel c of step t is sample
    n_group * t + c. Noise and latents use the same layout, so the noise that the original draws
    last (the early output of the lowest flow) is the lowest channels.

    Args:
        config: Hyperparameters. Parameters have the names listed in
            :class:`fastglow.checkpoint.weights.Weights`.

    Source:
        Prenger et al. 2018; NVIDIA/waveglow ``glow.py`` (coupling "fixed") and ``glow_old.py``
        (coupling "alternating": odd flows swap the halves).
    """

    def __init__(self, config: WaveGlowConfig) -> None:
        super().__init__()
        self.config = config
        mel = config.n_mel_channels
        self.upsample = nn.ConvTranspose1d(
            mel, mel, config.upsample_kernel, stride=config.hop_length
        )
        channels = config.flow_channels
        self.convinv = nn.ModuleList(Invertible1x1(n) for n in channels)
        self.WN = nn.ModuleList(WN(config.wn, n // 2, mel * config.n_group) for n in channels)

    @classmethod
    def from_weights(cls, weights: Weights, dtype: torch.dtype = torch.float64) -> WaveGlow:
        """The network with a checkpoint's weights, ready for inference."""
        model = cls.from_tensors(weights.config, {n: weights[n] for n in weights})
        return model.to(dtype).eval()

    @classmethod
    def from_tensors(
        cls, config: WaveGlowConfig, tensors: Mapping[str, np.ndarray | Tensor]
    ) -> WaveGlow:
        """The network with the given tensors, by published name, in float64."""
        with torch.device("meta"):
            model = cls(config)
        state = {n: torch.as_tensor(t).to(torch.float64) for n, t in tensors.items()}
        model.load_state_dict(state, assign=True)
        return model

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Every parameter as a numpy array by published name."""
        return {n: p.detach().cpu().numpy().copy() for n, p in self.state_dict().items()}

    def condition(self, mel: Tensor) -> Tensor:
        """Upsample and squeeze a mel, a ragged last group dropped.

        Args:
            mel: [B, n_mel, frames].

        Returns:
            [B, n_mel * n_group, steps]; band o at sample q of the step is channel n_group * o + q.
        """
        config = self.config
        batch, bands, frames = mel.shape
        if bands != config.n_mel_channels or frames == 0:
            raise InputError(
                f"mel has shape {list(mel.shape)}; expected [B, {config.n_mel_channels}, frames]"
            )
        steps = config.steps(frames)
        up: Tensor = self.upsample(mel)[:, :, : steps * config.n_group]
        grouped = up.reshape(batch, bands, steps, config.n_group)
        return grouped.permute(0, 1, 3, 2).reshape(batch, -1, steps)

    def squeeze(self, signal: Tensor) -> Tensor:
        """[B, samples] to [B, n_group, steps]."""
        return signal.reshape(signal.shape[0], -1, self.config.n_group).transpose(1, 2)

    def unsqueeze(self, grouped: Tensor) -> Tensor:
        """[B, n_group, steps] to [B, samples]."""
        return grouped.transpose(1, 2).reshape(grouped.shape[0], -1)

    def swaps(self, flow: int) -> bool:
        """Whether the upper half of the channels conditions the lower one in this flow."""
        return self.config.coupling == "alternating" and flow % 2 == 1

    def forward(self, audio: Tensor, mel: Tensor) -> Likelihood:
        """The latent of audio and the terms of its likelihood.

        Args:
            audio: [B, samples], within [-1, 1]; samples a multiple of n_group and at most
                what the mel covers.
            mel: [B, n_mel, frames].

        Raises:
            InputError: The shapes do not fit each other.
        """
        config = self.config
        covered, samples = config.samples(mel.shape[2]), audio.shape[1]
        if samples % config.n_group or not 0 < samples <= covered:
            raise InputError(
                f"{samples} samples of audio; expected a multiple of {config.n_group}, "
                f"at most the {covered} that {mel.shape[2]} mel frames cover"
            )
        cond = self.condition(mel)[:, :, : samples // config.n_group]
        x = self.squeeze(audio)
        log_s_sum = audio.new_zeros(audio.shape[0])
        log_det = audio.new_zeros(())
        early = []
        for k in range(config.n_flows):
            if config.is_early(k):
                early.append(x[:, : config.n_early_size])
                x = x[:, config.n_early_size :]
            matrix = self.convinv[k].matrix
            x = torch.einsum("ij,bjt->bit", matrix, x)
            log_det = log_det + x.shape[2] * torch.linalg.slogdet(matrix)[1]
            lower, upper = x.chunk(2, dim=1)
            kept, changed = (upper, lower) if self.swaps(k) else (lower, upper)
            b, log_s = self.WN[k](kept, cond).chunk(2, dim=1)
            changed = torch.exp(log_s) * changed + b
            x = torch.cat((changed, kept) if self.swaps(k) else (kept, changed), dim=1)
            log_s_sum = log_s_sum + log_s.sum(dim=(1, 2))
        z = self.unsqueeze(torch.cat([*early, x], dim=1))
        return Likelihood(z, log_s_sum, log_det)

    def infer(self, mel: Tensor, noise: Tensor, sigma: float = 1.0) -> Tensor:
        """Audio from noise: the exact inverse of :meth:`forward` where sigma is 1.

        Args:
            mel: [B, n_mel, frames].
            noise: [B, samples], standard normal, in the audio's layout.
            sigma: Scale of the noise.

        Returns:
            [B, samples] with samples = config.samples(frames).

        Raises:
            InputError: The shapes do not fit each other.
        """
        config = self.config
        if noise.shape != (mel.shape[0], config.samples(mel.shape[2])):
            raise InputError(
                f"noise has shape {list(noise.shape)}; "
                f"expected {[mel.shape[0], config.samples(mel.shape[2])]}"
            )
        cond = self.condition(mel)
        z = sigma * self.squeeze(noise)
        pending = config.n_group - config.flow_channels[-1]  # noise channels still to join
        x = z[:, pending:]
        for k in reversed(range(config.n_flows)):
            lower, upper = x.chunk(2, dim=1)
            kept, changed = (upper, lower) if self.swaps(k) else (lower, upper)
            b, log_s = self.WN[k](kept, cond).chunk(2, dim=1)
            changed = (changed - b) / torch.exp(log_s)
            x = torch.cat((changed, kept) if self.swaps(k) else (kept, changed), dim=1)
            x = torch.einsum("ij,bjt->bit", torch.linalg.inv(self.convinv[k].matrix), x)
            if config.is_early(k):
                pending -= config.n_early_size
                x = torch.cat((z[:, pending : pending + config.n_early_size], x), dim=1)
        return self.unsqueeze(x)
