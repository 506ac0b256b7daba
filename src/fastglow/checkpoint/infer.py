"""Hyperparameters: read where a checkpoint states them, inferred from shapes where not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastglow.checkpoint.finder import Found
from fastglow.checkpoint.inert import shown
from fastglow.config import Coupling, MelConfig, WaveGlowConfig, WNConfig
from fastglow.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]
Value = int | float | None

# Names that training programs give the hyperparameters: NVIDIA/waveglow's config.json,
# and the command line of DeepLearningExamples.
_ALIASES: dict[str, tuple[str, ...]] = {
    "n_mel_channels": ("n_mel_channels", "n_mel"),
    "n_flows": ("n_flows", "flows"),
    "n_group": ("n_group", "groups"),
    "n_early_every": ("n_early_every", "early_every"),
    "n_early_size": ("n_early_size", "early_size"),
    "n_layers": ("wn_layers",),
    "n_channels": ("wn_channels",),
    "kernel_size": ("wn_kernel_size",),
    "hop_length": ("hop_length",),
    "sampling_rate": ("sampling_rate",),
    "n_fft": ("filter_length",),
    "win_length": ("win_length",),
    "fmin": ("mel_fmin",),
    "fmax": ("mel_fmax",),
}
_DEFAULTS = WaveGlowConfig()
_WN_KEYS = ("n_layers", "n_channels", "kernel_size")


@dataclass(frozen=True, slots=True)
class Given:
    """What the caller says of the model.

    Attributes:
        hop: Audio samples a mel frame.
        rate: Sampling rate, Hz.
        dialect: "glow" or "glow_old".
    """

    hop: int | None = None
    rate: int | None = None
    dialect: str | None = None


class _Statements:
    """Values of each hyperparameter, with who states them; a contradiction is an error."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._values: dict[str, tuple[Value, str]] = {}

    def state(self, name: str, value: object, origin: str) -> None:
        if value is None and name != "fmax":
            return
        whole = name not in ("fmin", "fmax")
        if isinstance(value, float) and whole and value.is_integer():
            value = int(value)
        kinds = int if whole else int | float | None
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise CheckpointError(
                f"{self._source}: {name} is {shown(value)} by {origin}; a number was expected"
            )
        known = self._values.setdefault(name, (value, origin))
        if known[0] != value:
            raise CheckpointError(
                f"{self._source}: {name} is {shown(known[0])} by {known[1]} but {shown(value)} by "
                f"{origin}; the file contradicts itself or an argument is wrong"
            )

    def get(self, name: str) -> Any:
        return self._values[name][0] if name in self._values else None

    def __contains__(self, name: str) -> bool:
        return name in self._values


def infer_config(
    found: Found, shapes: Shapes, given: Given, coupling: Coupling, source: str, notes: list[str]
) -> WaveGlowConfig:
    """The hyperparameters of the model ``found``.

    Args:
        found: Gives module attributes and the dictionaries beside the model.
        shapes: Of every tensor, by published name.
        given: What the caller says.
        coupling: Of the dialect.
        source: The file's name, for messages.
        notes: Is told what had to be assumed.

    Raises:
        CheckpointError: Something is missing, contradictory or out of range.
    """
    said = _Statements(source)
    _from_shapes(said, shapes, source)
    _from_attributes(said, found.attributes, source)
    for settings in found.settings:
        _from_settings(said, settings)
    for name, value in (("hop_length", given.hop), ("sampling_rate", given.rate)):
        if value is not None:
            said.state(name, value, "the argument")
    if not found.attributes and "n_flows" not in _stated_keys(found):
        notes.append("Hyperparameters were inferred from the tensors' shapes.")
    _early_outputs(said, shapes, source, notes)
    _rates(said, source, notes)
    try:
        return WaveGlowConfig(
            **{
                name: said.get(name)
                for name in (
                    "n_mel_channels",
                    "n_flows",
                    "n_group",
                    "n_early_every",
                    "n_early_size",
                    "hop_length",
                    "upsample_kernel",
                    "sampling_rate",
                )
            },
            wn=WNConfig(*(said.get(name) for name in _WN_KEYS)),
            coupling=coupling,
            mel=_mel(said),
        )
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None


def _stated_keys(found: Found) -> set[str]:
    return {name for settings in found.settings for name in ("n_flows",) if name in settings}


def _shape(shapes: Shapes, name: str, source: str) -> tuple[int, int, int]:
    if name not in shapes:
        raise CheckpointError(f"{source}: no tensor named {name}; the checkpoint is incomplete")
    if len(shapes[name]) != 3:
        raise CheckpointError(
            f"{source}: {name} has shape {list(shapes[name])}; three axes were expected"
        )
    a, b, c = shapes[name]
    return a, b, c


def _count(shapes: Shapes, name: str) -> int:
    """How many tensors are named ``name`` with the numbers from 0 on."""
    count = 0
    while name.format(count) in shapes:
        count += 1
    return count


def _from_shapes(said: _Statements, shapes: Shapes, source: str) -> None:
    mel, _, kernel = _shape(shapes, "upsample.weight", source)
    channels = _shape(shapes, "WN.0.start.weight", source)[0]
    taps = _shape(shapes, "WN.0.in_layers.0.weight", source)[2]
    group = _shape(shapes, "convinv.0.conv.weight", source)[0]
    inputs = _shape(shapes, "WN.0.cond_layer.weight", source)[1]
    said.state("n_mel_channels", mel, "the shape of upsample.weight")
    said.state("upsample_kernel", kernel, "the shape of upsample.weight")
    said.state("n_flows", _count(shapes, "convinv.{}.conv.weight"), "the number of convinv")
    said.state("n_group", group, "the shape of convinv.0")
    said.state("n_channels", channels, "the shape of WN.0.start")
    said.state("kernel_size", taps, "the shape of WN.0.in_layers.0")
    said.state("n_layers", _count(shapes, "WN.0.in_layers.{}.weight"), "the number of in_layers")
    if inputs != mel * group:
        raise CheckpointError(
            f"{source}: WN.0.cond_layer takes {inputs} channels, but {mel} mel bands in groups of "
            f"{group} are {mel * group}; the tensors belong to different models"
        )


def _from_attributes(
    said: _Statements, attributes: Mapping[str, Mapping[Any, Any]], source: str
) -> None:
    for path, state in attributes.items():
        part = path.split(".")
        if path == "":
            keys: tuple[str, ...] = ("n_flows", "n_group", "n_early_every", "n_early_size")
        elif part[0] == "WN" and len(part) == 2:
            keys = ("n_layers", "n_channels")
        else:
            keys = ()
        for key in keys:
            if key in state:
                said.state(key, state[key], f"the attribute of {path or 'the module'}")
        if path == "upsample":
            stride = state.get("stride")
            if isinstance(stride, tuple) and stride:
                said.state("hop_length", stride[0], "the stride of upsample")
            _require(path, state, {"padding": 0, "output_padding": 0, "dilation": 1}, source)
        elif "kernel_size" in state and part[0] in ("WN", "convinv"):
            dilation = 2 ** min(int(part[3]), 64) if _is_in_layer(part) else 1
            taps = state["kernel_size"][0] if isinstance(state["kernel_size"], tuple) else 1
            padding = dilation * (taps - 1) // 2 if type(taps) is int else 0
            _require(path, state, {"dilation": dilation, "padding": padding, "stride": 1}, source)


def _is_in_layer(part: list[str]) -> bool:
    return len(part) == 4 and part[2] == "in_layers" and part[3].isdecimal()


def _require(path: str, state: Mapping[Any, Any], expected: Mapping[str, int], source: str) -> None:
    """Refuses a convolution whose geometry is not WaveGlow's."""
    wanted = {name: (value,) for name, value in expected.items()}
    for name, value in {**wanted, "groups": 1, "padding_mode": "zeros"}.items():
        if name in state and state[name] != value:
            found = state[name][0] if isinstance(state[name], tuple) else state[name]
            raise CheckpointError(
                f"{source}: {path} has {name} {shown(found)}, but WaveGlow has "
                f"{value[0] if isinstance(value, tuple) else value}; this is another model"
            )


def _from_settings(said: _Statements, settings: Mapping[Any, Any]) -> None:
    for name, aliases in _ALIASES.items():
        for alias in aliases:
            if alias in settings:
                said.state(name, settings[alias], f"the stored setting {alias}")
    inner = next((settings[k] for k in ("WN_config", "wn_config") if k in settings), None)
    if isinstance(inner, Mapping):
        for name in _WN_KEYS:
            if name in inner:
                said.state(name, inner[name], f"the stored WN_config's {name}")


def _early_outputs(said: _Statements, shapes: Shapes, source: str, notes: list[str]) -> None:
    """Early outputs from where the convinv shrink; what is stated must agree."""
    sizes = [
        _shape(shapes, f"convinv.{k}.conv.weight", source)[0] for k in range(said.get("n_flows"))
    ]
    drops = {k: sizes[k - 1] - sizes[k] for k in range(1, len(sizes)) if sizes[k] != sizes[k - 1]}
    if not drops:
        if "n_early_every" not in said or "n_early_size" not in said:
            notes.append("No flow has an early output.")
            said.state("n_early_size", said.get("n_early_size") or 0, "the shapes of convinv")
            every = said.get("n_early_every") or _DEFAULTS.n_early_every
            said.state("n_early_every", every, "the shapes of convinv")
        return
    every = min(drops)
    regular = dict.fromkeys(range(every, len(sizes), every), drops[every])
    if drops != regular:
        raise CheckpointError(
            f"{source}: the convinv have {sizes} channels, which no regular early output gives"
        )
    said.state("n_early_every", every, "the shapes of convinv")
    said.state("n_early_size", drops[every], "the shapes of convinv")


def _rates(said: _Statements, source: str, notes: list[str]) -> None:
    """Hop and sampling rate, by the published defaults where nothing states them."""
    if "hop_length" not in said:
        kernel = said.get("upsample_kernel")
        if kernel % 4:
            raise CheckpointError(
                f"{source}: nothing states the hop, and the upsampling kernel {kernel} is no "
                "multiple of 4; give hop="
            )
        said.state("hop_length", kernel // 4, "a quarter of the upsampling kernel")
        notes.append(f"Hop taken as {kernel // 4}, a quarter of the upsampling kernel.")
    if "sampling_rate" not in said:
        said.state("sampling_rate", _DEFAULTS.sampling_rate, "default")
        notes.append(f"Sampling rate taken as {_DEFAULTS.sampling_rate} Hz: none is stored.")


def _mel(said: _Statements) -> MelConfig:
    names = [name for name in ("n_fft", "win_length", "fmin", "fmax") if name in said]
    return MelConfig(**{name: said.get(name) for name in names})
