"""Discriminators, which learn to tell generated audio from recordings while the network learns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from fastglow.errors import InputError
from fastglow.training.losses import magnitude

SLOPE = 0.1  # of the leaky units
KERNEL, STRIDE = 5, 3  # along a period's samples
HEIGHT, WIDTH = 3, 9  # frames and bins of a spectrogram's kernels
DEEPEST = 8  # times the first layer's channels


@dataclass(frozen=True, slots=True)
class AdversaryConfig:
    """Which discriminators to train against, and how hard.

    Attributes:
        weight: Of the generator's loss against them; 0: there are none.
        features: Weight of the L1 distance of what their layers make of audio and recording.
        learning_rate: Their peak; it follows the network's schedule.
        segment: Samples that they look at, from the middle of a segment, where nothing is missing
            around them; 0: all.
        channels: Of their first layers.
        periods: Samples a row of each multi-period discriminator.
        windows: Samples of each multi-resolution discriminator's STFT frames.
    """

    weight: float = 0.0
    features: float = 2.0
    learning_rate: float = 2e-4
    segment: int = 8192
    channels: int = 16
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    windows: tuple[int, ...] = (512, 1024, 2048)

    def check(self, segment: int) -> None:
        """Refuse what no discriminator can look at.

        Args:
            segment: Samples of a segment.

        Raises:
            InputError: There is nothing to look with, or too little to look at.
        """
        heard, widest = min(self.segment or segment, segment), (*self.periods, *self.windows)
        if not widest:
            raise InputError("train.adversary has a weight, but neither periods nor windows")
        odd = [window for window in self.windows if window % 4]
        if odd:
            raise InputError(f"train.adversary.windows has {odd[0]}; expected multiples of 4")
        if heard < max(widest):
            raise InputError(
                f"the discriminators look at {heard} samples through periods and windows of up to "
                f"{max(widest)}; expected longer train.adversary.segment"
            )


class Verdict(NamedTuple):
    """What a discriminator finds: a number near 1 for recorded parts, and its layers' outputs."""

    score: Tensor
    features: list[Tensor]


class PeriodDiscriminator(nn.Module):
    """Looks at every ``period``-th sample.

    Source:
        Kong et al. 2020 (HiFi-GAN), section 2.3; narrower.
    """

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, *(min(2**i, DEEPEST) * channels for i in range(5))]
        strides = [STRIDE] * 4 + [1]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv1d(a, b, KERNEL, stride, KERNEL // 2))
            for a, b, stride in zip(widths, widths[1:], strides, strict=False)
        )
        self.last = weight_norm(nn.Conv1d(widths[-1], 1, 3, 1, 1))

    def forward(self, audio: Tensor) -> Verdict:
        """Audio [B, samples]; what does not fill a period is left out."""
        whole = audio.shape[1] // self.period * self.period
        rows = audio[:, :whole].reshape(len(audio), -1, self.period).transpose(1, 2)
        return _through(rows.reshape(-1, 1, rows.shape[2]), self.layers, self.last)


class ResolutionDiscriminator(nn.Module):
    """Looks at magnitudes of one STFT.

    Source:
        Jang et al. 2021 (UnivNet), section 2.2; narrower.
    """

    def __init__(self, window: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        pad = (HEIGHT // 2, WIDTH // 2)
        self.layers = nn.ModuleList(
            weight_norm(
                nn.Conv2d(1 if i == 0 else channels, channels, (HEIGHT, WIDTH), (1, stride), pad)
            )
            for i, stride in enumerate((1, 2, 2, 2, 1))
        )
        self.last = weight_norm(nn.Conv2d(channels, 1, 3, 1, 1))

    def forward(self, audio: Tensor) -> Verdict:
        """Audio [B, samples]."""
        window = self.get_buffer("window")
        spectrum = magnitude(audio, window, len(window) // 4)
        return _through(spectrum[:, None], self.layers, self.last)


def _through(x: Tensor, layers: nn.ModuleList, last: nn.Module) -> Verdict:
    features = []
    for layer in layers:
        x = functional.leaky_relu(layer(x), SLOPE)
        features.append(x)
    return Verdict(last(x), features)


class Adversary(nn.Module):
    """All discriminators, with least-squares losses.

    Its buffer ``trust``, from 0 to 1, scales what the generator hears of them: at first they know
    nothing.
    """

    def __init__(self, config: AdversaryConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("trust", torch.ones(()), persistent=False)
        self.discriminators = nn.ModuleList(
            [PeriodDiscriminator(period, config.channels) for period in config.periods]
            + [ResolutionDiscriminator(window, config.channels) for window in config.windows]
        )

    def forward(self, audio: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The losses of both sides; their gradients meet nowhere.

        Args:
            audio: [B, samples], generated; the gradient of ``adversarial`` and ``features`` goes to
                it, and none to the discriminators.
            target: [B, samples], recorded.

        Returns:
            Scalars: ``critic``, the discriminators' own loss; ``adversarial`` and ``features``,
            the generator's, unweighted.

        Source:
            Mao et al. 2017 (least squares); Larsen et al. 2016 (distance of features), here
            relative to the recording's.
        """
        audio, target = (self._middle(signal) for signal in (audio, target))
        critic, adversarial, features = [], [], []
        with torch.autocast(
            audio.device.type, torch.bfloat16, enabled=audio.is_cuda, cache_enabled=False
        ):
            for discriminator in self.discriminators:
                real, fake = discriminator(target), discriminator(audio.detach())
                critic.append(_square(1 - real.score) + _square(fake.score))
                with _frozen(discriminator):
                    judged = discriminator(audio)
                adversarial.append(_square(1 - judged.score))
                for found, wanted in zip(judged.features, real.features, strict=True):
                    wanted = wanted.detach().float()
                    features.append((found.float() - wanted).abs().mean() / wanted.abs().mean())
        terms = {"critic": critic, "adversarial": adversarial, "features": features}
        return {name: torch.stack(values).mean() for name, values in terms.items()}

    def _middle(self, signal: Tensor) -> Tensor:
        size = min(self.config.segment, signal.shape[1]) or signal.shape[1]
        first = (signal.shape[1] - size) // 2
        return signal[:, first : first + size]

    def weighted(self, terms: dict[str, Tensor]) -> Tensor:
        """The generator's loss of what :meth:`forward` returns."""
        fooled = terms["adversarial"] + self.config.features * terms["features"]
        return self.get_buffer("trust") * self.config.weight * fooled


def _square(x: Tensor) -> Tensor:
    return x.float().square().mean()


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """What is computed within passes gradients through the module, and none to it."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
