"""Hyperparameters of a WaveGlow: immutable, validated once, written to ``config.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from fastglow.errors import CheckpointError

Coupling = Literal["fixed", "alternating"]


def _require(ok: bool, found: str, expected: str) -> None:
    if not ok:
        raise CheckpointError(f"bad hyperparameters: {found}; expected {expected}")


def _integers(owner: object, *ranges: tuple[str, int, int]) -> None:
    """Check that fields are whole numbers within (name, low, high)."""
    for name, low, high in ranges:
        value = getattr(owner, name)
        ok = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        _require(ok, f"{name}={value!r}", f"a whole number, {low} to {high}")


@dataclass(frozen=True, slots=True)
class WNConfig:
    """The WN network inside each affine coupling.

    Attributes:
        n_layers: Dilated layers; layer i has dilation 2**i.
        n_channels: Channels C of the residual stream.
        kernel_size: Odd taps of each dilated convolution.
    """

    n_layers: int = 8
    n_channels: int = 256
    kernel_size: int = 3

    def __post_init__(self) -> None:
        _integers(self, ("n_layers", 1, 16), ("n_channels", 1, 4096), ("kernel_size", 1, 31))
        odd = self.kernel_size % 2 == 1
        _require(odd, f"kernel_size={self.kernel_size}", "an odd number")


@dataclass(frozen=True, slots=True)
class MelConfig:
    """How the mel spectrogram that the model was trained on was made (Tacotron 2's by default)."""

    n_fft: int = 1024
    win_length: int = 1024
    fmin: float = 0.0
    fmax: float | None = 8000.0

    def __post_init__(self) -> None:
        _integers(self, ("n_fft", 2, 1 << 20), ("win_length", 1, 1 << 20))
        for name, value in (("fmin", self.fmin), ("fmax", self.fmax)):
            ok = isinstance(value, int | float) and abs(value) < 1e6
            _require(
                ok or (name == "fmax" and value is None), f"{name}={value!r}", "a number of Hz"
            )


@dataclass(frozen=True, slots=True)
class WaveGlowConfig:
    """Every hyperparameter that shapes a WaveGlow, with the published defaults.

    Attributes:
        n_mel_channels: Mel bands.
        n_flows: Flows; flow ``n_flows - 1`` runs first in inference.
        n_group: Audio samples squeezed into one step.
        n_early_every: An early output before each flow k > 0 that this divides.
        n_early_size: Channels of each early output.
        wn: The WN network of each flow.
        hop_length: Audio samples a mel frame (the upsampling's stride).
        upsample_kernel: Kernel of the transposed convolution that upsamples the mel.
        sampling_rate: Hz.
        coupling: ``fixed``: the first half conditions the second in every flow;
            ``alternating``: odd flows swap the halves (the ``glow_old`` dialect).
        mel: How mels for this model are computed.
    """

    n_mel_channels: int = 80
    n_flows: int = 12
    n_group: int = 8
    n_early_every: int = 4
    n_early_size: int = 2
    wn: WNConfig = field(default_factory=WNConfig)
    hop_length: int = 256
    upsample_kernel: int = 1024
    sampling_rate: int = 22050
    coupling: Coupling = "fixed"
    mel: MelConfig = field(default_factory=MelConfig)

    def __post_init__(self) -> None:
        _integers(
            self,
            ("n_mel_channels", 1, 1024),
            ("n_flows", 1, 64),
            ("n_group", 2, 64),
            ("n_early_every", 1, 1024),
            ("n_early_size", 0, 62),
            ("hop_length", 1, 8192),
            ("upsample_kernel", 1, 65536),
            ("sampling_rate", 1000, 384000),
        )
        _require(self.n_group % 2 == 0, f"n_group={self.n_group}", "an even number")
        _require(self.n_early_size % 2 == 0, f"n_early_size={self.n_early_size}", "an even number")
        _require(
            self.upsample_kernel >= self.hop_length,
            f"upsample_kernel={self.upsample_kernel} under hop_length={self.hop_length}",
            "a kernel at least as long as the hop",
        )
        _require(
            self.coupling in ("fixed", "alternating"),
            f"coupling={self.coupling!r}",
            "'fixed' or 'alternating'",
        )
        last = self.flow_channels[-1]
        _require(last >= 2, f"{last} channels left after the early outputs", "at least 2")

    def is_early(self, flow: int) -> bool:
        """Whether ``n_early_size`` channels leave the flow just before ``flow``."""
        return flow > 0 and self.n_early_size > 0 and flow % self.n_early_every == 0

    @property
    def flow_channels(self) -> tuple[int, ...]:
        """Channels of the audio that each flow works on, flow 0 first."""
        out, remaining = [], self.n_group
        for k in range(self.n_flows):
            remaining -= self.n_early_size if self.is_early(k) else 0
            out.append(remaining)
        return tuple(out)

    @property
    def has_phases(self) -> bool:
        """Whether a mel frame is a whole number of steps, which phase matrices need."""
        return self.hop_length % self.n_group == 0

    @property
    def phases(self) -> int:
        """Steps a mel frame."""
        return self.hop_length // self.n_group

    @property
    def mel_taps(self) -> int:
        """Mel frames that reach one step: the frame itself and those before it."""
        return -(-self.upsample_kernel // self.hop_length)

    @property
    def receptive_field(self) -> tuple[int, int]:
        """Mel frames (before, after) that reach a frame's audio: (99, 96) as published."""
        steps = self.n_flows * (self.wn.kernel_size // 2) * ((1 << self.wn.n_layers) - 1)
        frames = -(-steps // self.phases)
        return frames + self.mel_taps - 1, frames

    def steps(self, frames: int) -> int:
        """Steps that ``frames`` mel frames become (a ragged last group is dropped)."""
        return frames * self.hop_length // self.n_group

    def samples(self, frames: int) -> int:
        """Audio samples that ``frames`` mel frames become."""
        return self.steps(frames) * self.n_group

    def to_dict(self) -> dict[str, Any]:
        """The plain dictionary that ``config.json`` holds."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> WaveGlowConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            CheckpointError: A key is unknown or a value has the wrong type or range.
        """
        try:
            fields = dict(data)
            fields["wn"] = WNConfig(**fields.get("wn", {}))
            fields["mel"] = MelConfig(**fields.get("mel", {}))
            return cls(**fields)
        except (TypeError, AttributeError, ValueError) as error:
            raise CheckpointError(f"bad hyperparameters: {error}") from None
