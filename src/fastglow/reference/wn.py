"""The WN network inside each affine coupling, as published."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastglow.config import WNConfig


class WN(nn.Module):
    """Dilated, gated, mel-conditioned convolutions from half the channels to ``b`` and ``log_s``.

    Args:
        config: Layers, channels and kernel size.
        n_half: Channels that condition the coupling.
        n_cond: Channels of the squeezed, upsampled mel (n_mel * n_group).

    Source:
        Prenger et al. 2018, section 2.2; NVIDIA/waveglow ``glow.py``, class ``WN``.
    """

    def __init__(self, config: WNConfig, n_half: int, n_cond: int) -> None:
        super().__init__()
        self.config = config
        c, taps, last = config.n_channels, config.kernel_size, config.n_layers - 1
        self.start = nn.Conv1d(n_half, c, 1)
        self.cond_layer = nn.Conv1d(n_cond, 2 * c * config.n_layers, 1)
        self.in_layers = nn.ModuleList(
            nn.Conv1d(c, 2 * c, taps, dilation=2**i, padding=(taps - 1) * 2**i // 2)
            for i in range(config.n_layers)
        )
        self.res_skip_layers = nn.ModuleList(
            nn.Conv1d(c, c if i == last else 2 * c, 1) for i in range(config.n_layers)
        )
        self.end = nn.Conv1d(c, 2 * n_half, 1)
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """The coupling's parameters.

        Args:
            x: [B, n_half, steps], the channels that pass unchanged.
            cond: [B, n_mel * n_group, steps], the squeezed, upsampled mel.

        Returns:
            [B, 2 * n_half, steps]: ``b`` in the lower half of the channels, ``log_s`` above.
        """
        c, last = self.config.n_channels, self.config.n_layers - 1
        residual: Tensor = self.start(x)
        conditioning = self.cond_layer(cond).split(2 * c, dim=1)
        skip = torch.zeros_like(residual)
        for i, (in_layer, res_skip) in enumerate(
            zip(self.in_layers, self.res_skip_layers, strict=True)
        ):
            gates = in_layer(residual) + conditioning[i]
            acts = torch.tanh(gates[:, :c]) * torch.sigmoid(gates[:, c:])
            out = res_skip(acts)
            if i < last:
                residual = residual + out[:, :c]
            skip = skip + (out if i == last else out[:, c:])
        result: Tensor = self.end(skip)
        return result
