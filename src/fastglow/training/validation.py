"""How good the averaged weights are on held-out recordings, with the same noise every time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastglow.config import WaveGlowConfig
from fastglow.training.check import Recording
from fastglow.training.data import Segments
from fastglow.training.likelihood import objective_of
from fastglow.training.network import InverseNetwork
from fastglow.training.objective import Analysis, Kind, TrainConfig

SEED = 20181031  # of segments and noise: nothing a user changes may change what is compared
CLIP = 4.0  # seconds of the recording to listen to


class Clip(NamedTuple):
    """A recording, what the network makes of its mel, and the mels of both."""

    audio: NDArray[np.float32]
    recorded: NDArray[np.float32]
    mel: NDArray[np.float32]
    recorded_mel: NDArray[np.float32]


class Validation:
    """Fixed segments and a fixed clip of held-out recordings.

    Args:
        recordings: The held-out ones.
        model: Hyperparameters.
        config: How the network is trained.
        count: Segments to look at.
        device: Where to compute.
        objective: By which it is trained.
    """

    def __init__(
        self, recordings: Sequence[Recording], model: WaveGlowConfig, config: TrainConfig,
        count: int, device: torch.device, objective: Kind = "inverse",
    ) -> None:  # fmt: skip
        self.config, self.device, self.count, self.kind = config, device, count, objective
        self.analysis = Analysis(model, config).to(device)
        hop, margin = self.analysis.hop, self.analysis.margin
        generator = torch.Generator().manual_seed(SEED)
        waves = [torch.from_numpy(r.wave) for r in recordings]
        self.audio = Segments(waves, config.segment, margin).draw(count, generator).to(device)
        self.noise = torch.randn(count, config.segment, generator=generator).to(device)
        self.fill_seed = SEED + 1
        longest = min(len(waves[0]), round(CLIP * model.sampling_rate)) // hop * hop
        clip = Segments([waves[0][:longest]], longest, margin)
        self.clip_audio = clip.draw(1, generator).to(device)
        self.clip_noise = torch.randn(1, longest, generator=generator).to(device)

    @torch.no_grad()
    def scores(self, network: InverseNetwork) -> dict[str, float]:
        """Means over the segments: the objective's terms, and ``log_mel_l1`` of generated audio."""
        objective = objective_of(self.kind, network, self.config).to(self.device).eval()
        generator = torch.Generator().manual_seed(self.fill_seed)
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        for start in range(0, self.count, self.config.batch):
            rows = slice(start, start + self.config.batch)
            audio = self.audio[rows]
            noise = torch.empty(len(audio), self.config.segment)
            objective.fill(noise, generator)
            sigma = torch.full((len(audio), 1), self.config.sigma, device=self.device)
            terms = objective(audio, noise.to(self.device), sigma)
            target, mel = self.analysis(audio)
            generated = self.analysis.mel(objective.generate(mel, self.noise[rows]))
            terms["log_mel_l1"] = (generated - self.analysis.mel(target)).abs().mean()
            for name, value in terms.items():
                sums[name] += value * (len(audio) / self.count)
        return {name: float(value) for name, value in sums.items()}

    @torch.no_grad()
    def clip(self, network: InverseNetwork) -> Clip:
        """The clip through the network."""
        objective = objective_of(self.kind, network, self.config).to(self.device).eval()
        recorded, mel = self.analysis(self.clip_audio)
        audio = objective.generate(mel, self.clip_noise)
        found, expected = (self.analysis.mel(signal) for signal in (audio, recorded))
        return Clip(*(t[0].cpu().numpy() for t in (audio, recorded, found, expected)))
