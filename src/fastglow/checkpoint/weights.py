"""The weights of a WaveGlow in one layout, whatever checkpoint they came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastglow.config import WaveGlowConfig
from fastglow.errors import CheckpointError

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where weights came from.

    Attributes:
        path: The file or folder as given.
        sha256: Of the file's bytes (of the weight file in a folder; "" for loose .npy files).
        container: For example "torch zip", "torch legacy", "safetensors", "npy folder".
        dialect: One readable line, for example "pickled module, weight_g/weight_v".
        notes: What had to be inferred or repaired, a sentence each.
    """

    path: str
    sha256: str
    container: str
    dialect: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WeightNorm:
    """A weight stored as magnitude ``g`` [out, 1, 1] and direction ``v`` [out, in, k]."""

    g: NDArray[np.generic]
    v: NDArray[np.generic]

    def fold(self) -> Float64:
        """The plain weight g * v / |v|, the norm taken over every axis but the first."""
        v = self.v.astype(np.float64)
        norm = np.sqrt(np.sum(v * v, axis=tuple(range(1, v.ndim)), keepdims=True))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(v * (self.g.astype(np.float64).reshape(norm.shape) / norm))


@dataclass(frozen=True)
class Weights(Mapping[str, Float64]):
    """Every tensor of a WaveGlow under its published name, weight norm folded.

    Names: ``upsample.weight`` [n_mel, n_mel, kernel], ``upsample.bias``;
    for each flow k ``convinv.k.conv.weight`` [n, n, 1], ``WN.k.start.weight`` [C, n/2, 1],
    ``WN.k.cond_layer.weight`` [2*C*n_layers, n_mel*n_group, 1],
    ``WN.k.in_layers.i.weight`` [2*C, C, kernel_size],
    ``WN.k.res_skip_layers.i.weight`` [2*C, C, 1] ([C, C, 1] in the last layer),
    ``WN.k.end.weight`` [n, C, 1]; each but convinv with its ``.bias``.
    Reading a name gives a float64 array, computed at each access so that a large model is
    never held in float64 as a whole.

    Attributes:
        config: The hyperparameters.
        stored: Arrays as stored, or :class:`WeightNorm` pairs, by published name.
        provenance: Where they came from.
    """

    config: WaveGlowConfig
    stored: Mapping[str, NDArray[np.generic] | WeightNorm] = field(repr=False)
    provenance: Provenance = field(default=Provenance("", "", "memory", "in memory"))

    def __post_init__(self) -> None:
        for name, shape in expected_shapes(self.config).items():
            if name not in self.stored:
                raise CheckpointError(f"{self.provenance.path}: no tensor named {name}")
            found = self._shape(name)
            if found != shape:
                raise CheckpointError(
                    f"{self.provenance.path}: {name} has shape {list(found)}, "
                    f"but these hyperparameters need {list(shape)}"
                )

    def _shape(self, name: str) -> tuple[int, ...]:
        value = self.stored[name]
        return tuple(value.v.shape if isinstance(value, WeightNorm) else value.shape)

    def __getitem__(self, name: str) -> Float64:
        value = self.stored[name]
        return value.fold() if isinstance(value, WeightNorm) else value.astype(np.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(expected_shapes(self.config))

    def __len__(self) -> int:
        return len(expected_shapes(self.config))

    @property
    def parameters(self) -> int:
        """Numbers in the folded model."""
        return sum(int(np.prod(shape)) for shape in expected_shapes(self.config).values())


def expected_shapes(config: WaveGlowConfig) -> dict[str, tuple[int, ...]]:
    """The published name and shape of every tensor of a model with these hyperparameters."""
    c, mel, wn = config.wn.n_channels, config.n_mel_channels, config.wn
    shapes: dict[str, tuple[int, ...]] = {
        "upsample.weight": (mel, mel, config.upsample_kernel),
        "upsample.bias": (mel,),
    }

    def conv(name: str, out: int, inputs: int, kernel: int) -> None:
        shapes[f"{name}.weight"] = (out, inputs, kernel)
        shapes[f"{name}.bias"] = (out,)

    for k, n in enumerate(config.flow_channels):
        shapes[f"convinv.{k}.conv.weight"] = (n, n, 1)
        conv(f"WN.{k}.start", c, n // 2, 1)
        conv(f"WN.{k}.cond_layer", 2 * c * wn.n_layers, mel * config.n_group, 1)
        for i in range(wn.n_layers):
            conv(f"WN.{k}.in_layers.{i}", 2 * c, c, wn.kernel_size)
            conv(f"WN.{k}.res_skip_layers.{i}", c if i == wn.n_layers - 1 else 2 * c, c, 1)
        conv(f"WN.{k}.end", n, c, 1)
    return shapes
