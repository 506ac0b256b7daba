"""The file that says what to train: TOML in, checked and frozen settings out."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fastglow.config import WaveGlowConfig
from fastglow.errors import CheckpointError, InputError
from fastglow.training.objective import Kind, TrainConfig

T = TypeVar("T")
MAX_FILE = 1_000_000  # bytes


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What to train on; relative paths start from the settings file.

    Attributes:
        train: Audio files, folders of them, or lists (.txt: a path a line; .tsv: path and weight).
        validation: The same, held out of ``train``; none: no validation.
        speeds: Lengths of further copies of every recording, relative to the original.
        speed_weight: How often to draw from such a copy, relative to the original.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    speeds: tuple[float, ...] = ()
    speed_weight: float = 0.1


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What to write, and how often.

    Attributes:
        checkpoint_every: Steps between checkpoints.
        keep: Checkpoints to keep beside the newest voice.
        validate_every: Steps between validations.
        validation_segments: Held-out segments that each validation looks at.
        log_every: Steps between lines of the log.
        tensorboard: Whether to write for TensorBoard, if it is installed.
    """

    checkpoint_every: int = 1000
    keep: int = 3
    validate_every: int = 1000
    validation_segments: int = 32
    log_every: int = 50
    tensorboard: bool = True


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about a run.

    Attributes:
        out: The folder to write; relative to the settings file.
        train: How to train.
        data: What to train on.
        objective: "inverse" (spectral losses on what noise becomes) or "likelihood" (published).
        init: A checkpoint or a shipped voice's name to start from; none: random weights.
        model: Hyperparameters; with ``init`` they may be left out, else must be its own.
        run: What to write.
    """

    out: str
    train: TrainConfig
    data: DataConfig
    objective: Kind = "inverse"
    init: str | None = None
    model: WaveGlowConfig | None = None
    run: RunConfig = field(default_factory=RunConfig)


LIMITS: dict[str, tuple[float, float]] = {
    "train.steps": (1, 1e9),
    "train.batch": (1, 65536),
    "train.segment": (64, 1 << 24),
    "train.flows": (0, 65536),
    "train.learning_rate": (1e-9, 1.0),
    "train.warmup": (0, 1e9),
    "train.betas": (0.0, 0.999999),
    "train.weight_decay": (0.0, 10.0),
    "train.ema": (0.0, 0.9999999),
    "train.sigma": (1e-3, 10.0),
    "train.spread": (0.0, 1.0),
    "train.mixing_floor": (0.0, 0.99),
    "train.likelihood": (0.0, 1e6),
    "train.likelihood_share": (0.0, 1.0),
    "train.prior_freedom": (0.0, 1e6),
    "train.gain": (0.0, 1.0),
    "train.seed": (0, 2**40),
    "train.loss.mel": (0.0, 1e6),
    "train.loss.log_magnitude": (0.0, 1e6),
    "train.loss.convergence": (0.0, 1e6),
    "train.loss.compressed": (0.0, 1e6),
    "train.loss.exponent": (0.01, 1.0),
    "train.loss.repulsion": (0.0, 1.0),
    "train.loss.hum": (0.0, 1e6),
    "train.loss.whistles": (0.0, 1e6),
    "train.adversary.weight": (0.0, 1e6),
    "train.adversary.features": (0.0, 1e6),
    "train.adversary.learning_rate": (1e-9, 1.0),
    "train.adversary.segment": (0, 1 << 24),
    "train.adversary.channels": (1, 1024),
    "train.adversary.periods": (1, 1024),
    "train.adversary.windows": (16, 65536),
    "train.loss.resolutions.n_fft": (16, 65536),
    "train.loss.resolutions.hop": (1, 65536),
    "train.loss.resolutions.n_mels": (0, 1024),
    "train.loss.resolutions.fmax": (100.0, 1e6),
    "data.speeds": (0.25, 4.0),
    "data.speed_weight": (1e-6, 1e6),
    "run.checkpoint_every": (1, 1e9),
    "run.keep": (0, 1e6),
    "run.validate_every": (1, 1e9),
    "run.validation_segments": (1, 65536),
    "run.log_every": (1, 1e9),
}


def read_settings(
    path: Path, *, out: Path | None = None, steps: int | None = None, init: str | None = None
) -> Settings:
    """The settings in a file.

    Args:
        path: A TOML file.
        out: In place of the file's ``out``, relative to the working folder.
        steps: In place of its ``train.steps``.
        init: In place of its ``init``, relative to the working folder.

    Raises:
        InputError: It cannot be read, or a key is unknown, missing or of an unusable value.
    """
    try:
        with path.open("rb") as file:
            table = tomllib.loads(file.read(MAX_FILE).decode("utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; `fastglow train --example > {path.name}` makes one"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as TOML ({error})") from None
    if out is not None:
        table["out"] = str(out.absolute())
    if init is not None:
        table["init"] = str(Path(init).absolute()) if Path(init).exists() else init
    if steps is not None and isinstance(table.setdefault("train", {}), dict):
        table["train"]["steps"] = steps
    try:
        return _table(Settings, table, "")
    except (InputError, CheckpointError) as error:
        raise InputError(f"{path}: {error}") from None


def _table(kind: type[T], table: dict[str, Any], at: str) -> T:
    """A dataclass from a TOML table whose keys and types are checked."""
    hints = get_type_hints(kind)
    for key in table:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            meant = f"did you mean {near[0]}?" if near else f"known: {', '.join(hints)}"
            raise InputError(f"unknown key {at}{key}; {meant}")
    values = {key: _value(hints[key], value, f"{at}{key}") for key, value in table.items()}
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]  # kind is a dataclass
        needed = item.default is dataclasses.MISSING
        if needed and item.default_factory is dataclasses.MISSING and item.name not in table:
            raise InputError(f"{at}{item.name} is missing; it has no default")
    return kind(**values)


def _value(kind: Any, value: Any, where: str) -> Any:
    """A TOML value as the type that a field has."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(k for k in get_args(kind) if k is not type(None))
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        _require(isinstance(value, dict), where, value, "a table")
        return _table(kind, value, f"{where}.")
    if get_origin(kind) is Literal:
        _require(value in get_args(kind), where, value, " or ".join(map(repr, get_args(kind))))
        return value
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if inner[-1] is Ellipsis:
            _require(isinstance(value, list), where, value, "a list")
            return tuple(_value(inner[0], item, where) for item in value)
        right = isinstance(value, list) and len(value) == len(inner)
        _require(right, where, value, f"a list of {len(inner)}")
        return tuple(_value(k, item, where) for k, item in zip(inner, value, strict=True))
    return _scalar(kind, value, where)


def _scalar(kind: type, value: Any, where: str) -> Any:
    low, high = LIMITS.get(where, (-math.inf, math.inf))
    span = f" from {low:g} to {high:g}" if where in LIMITS else ""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is bool:
        _require(isinstance(value, bool), where, value, "true or false")
    elif kind is str:
        _require(isinstance(value, str) and bool(value), where, value, "a text")
    elif kind is int:
        right = number and isinstance(value, int) and low <= value <= high
        _require(right, where, value, f"a whole number{span}")
    else:
        right = number and math.isfinite(value) and low <= value <= high
        _require(right, where, value, f"a number{span}")
        return float(value)
    return value


def _require(right: bool, where: str, value: Any, expected: str) -> None:
    if not right:
        shown = value if isinstance(value, str) else str(value).lower()
        raise InputError(f"{where} is {shown[:80]!r}; expected {expected}")
