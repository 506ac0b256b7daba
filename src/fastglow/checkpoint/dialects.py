"""From a model in any dialect to :class:`Weights`: published names, one layout.

Source: the published layout is that of NVIDIA/waveglow ``glow.py``; that ``res_layers`` come
before ``skip_layers`` and that ``cond_layers`` stack in order is its ``convert_model.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fastglow.checkpoint.finder import Found
from fastglow.checkpoint.inert import Array, LazyTensor
from fastglow.checkpoint.infer import Given, infer_config
from fastglow.checkpoint.weights import Provenance, WeightNorm, Weights, expected_shapes
from fastglow.config import Coupling
from fastglow.errors import CheckpointError

Stored = dict[str, Array | WeightNorm]

COUPLINGS: dict[str, Coupling] = {"glow": "fixed", "glow_old": "alternating"}
MIN_SINGULAR_RATIO = 1e-7  # of a convinv: below, fp32 audio would be rounding errors

_LAYER = r"WN\.\d+\.(?:in_layers|cond_layers|res_skip_layers|res_layers|skip_layers)\.\d+"
_BASES = re.compile(
    rf"(upsample|convinv\.\d+\.conv|WN\.\d+\.(?:start|end|cond_layer)|{_LAYER})\.(.+)"
)
_PARTS = {
    "weight": "weight",
    "bias": "bias",
    "weight_g": "g",
    "weight_v": "v",
    "parametrizations.weight.original0": "g",
    "parametrizations.weight.original1": "v",
}


def to_weights(found: Found, given: Given, provenance: Provenance, size: int) -> Weights:
    """The weights of the model ``found``.

    Args:
        found: The model as stored.
        given: What the caller says of it.
        provenance: Of the file; its dialect and notes are filled in here.
        size: Of the file, bytes.

    Raises:
        CheckpointError: A tensor is missing, extra, of another shape or not finite, a convinv
            cannot be inverted, or the hyperparameters contradict one another.
    """
    source = provenance.path
    notes: list[str] = []
    stored, traits = _published(found.tensors, source, size, notes)
    coupling, style = _coupling(found, given, source, notes)
    shapes = {name: _shape(value) for name, value in stored.items()}
    config = infer_config(found, shapes, given, coupling, source, notes)
    extra = sorted(stored.keys() - expected_shapes(config).keys())
    if extra:
        raise CheckpointError(
            f"{source}: {extra[0]} belongs to no WaveGlow with these hyperparameters; "
            "the file mixes models or is of a dialect that fastglow does not know"
        )
    dialect = ", ".join([style, *traits, *([f"prefix {found.prefix}"] if found.prefix else [])])
    weights = Weights(
        config, stored, replace(provenance, dialect=dialect, notes=(*provenance.notes, *notes))
    )
    check_numbers(weights)
    return weights


def check_numbers(weights: Weights) -> None:
    """Refuses weights that can give no sound.

    Raises:
        CheckpointError: A tensor is not finite, or a convinv cannot be inverted.
    """
    source = weights.provenance.path
    for name, value in weights.stored.items():
        parts = (value.g, value.v) if isinstance(value, WeightNorm) else (value,)
        if not all(np.isfinite(part).all() for part in parts):
            raise CheckpointError(
                f"{source}: {name} has values that are not finite; the file is damaged "
                "or its training diverged: use an earlier checkpoint"
            )
        if isinstance(value, WeightNorm) and not value.v.any(axis=(1, 2)).all():
            raise CheckpointError(f"{source}: {name} has a direction of length zero; retrain it")
        if name.startswith("convinv."):
            singular = np.linalg.svd(weights[name][:, :, 0], compute_uv=False)
            if singular[-1] <= MIN_SINGULAR_RATIO * singular[0]:
                raise CheckpointError(
                    f"{source}: {name} is singular, so that no audio can be made from it; "
                    "use an earlier checkpoint"
                )


def _coupling(found: Found, given: Given, source: str, notes: list[str]) -> tuple[Coupling, str]:
    """The coupling, and how the model was stored, in words."""
    stored_as = found.classes.get("", "")
    style = f"{found.form} {stored_as}"[:120] if stored_as else found.form
    module = stored_as.split(".")[-2] if "." in stored_as else ""
    named = module if module in COUPLINGS else None
    if given.dialect is not None and given.dialect not in COUPLINGS:
        raise CheckpointError(
            f"{source}: unknown dialect {given.dialect!a}; 'glow' and 'glow_old' are known"
        )
    if named and given.dialect and named != given.dialect:
        raise CheckpointError(
            f"{source}: dialect {given.dialect!r} was given, but the file holds {stored_as}; "
            "leave the argument out"
        )
    dialect = given.dialect or named
    if dialect is None:
        notes.append(
            "Nothing says whether the affine coupling alternates: taken as glow (it does not); "
            "give dialect='glow_old' if the audio is noise."
        )
    return COUPLINGS[dialect or "glow"], style + (", glow_old" if dialect == "glow_old" else "")


def _shape(value: Array | WeightNorm) -> tuple[int, ...]:
    return value.v.shape if isinstance(value, WeightNorm) else value.shape


def _published(
    tensors: Mapping[str, LazyTensor], source: str, size: int, notes: list[str]
) -> tuple[Stored, list[str]]:
    """Every tensor under its published name, and the traits of the dialect in words."""
    modules: dict[str, dict[str, Array]] = {}
    ignored: list[str] = []
    traits: list[str] = []
    read = 0
    for name, tensor in tensors.items():
        match = _BASES.fullmatch(name)
        if match is None and not name.endswith("W_inverse"):
            ignored.append(name)
        if match is None:
            continue
        base, part = match.groups()
        if part not in _PARTS:
            raise CheckpointError(f"{source}: {name[:120]!a} is unknown in every WaveGlow dialect")
        parts = modules.setdefault(base, {})
        if _PARTS[part] in parts:
            raise CheckpointError(f"{source}: {base} has its weight twice")
        parts[_PARTS[part]] = array = _numbers(tensor, name, source)
        read += array.nbytes
        if read > 2 * size + 16_000_000:
            raise CheckpointError(f"{source}: its tensors overlap; do not use this file")
        trait = {"g": "parametrizations" if "." in part else "weight_g/weight_v"}.get(_PARTS[part])
        if trait and trait not in traits:
            traits.append(trait)
    if ignored:
        notes.append(
            f"{len(ignored)} tensors outside the model were ignored ({ignored[0][:80]!a}, …)."
        )
    stored: Stored = {}
    for base in list(modules):
        _join(stored, base, modules.pop(base), source)
    return stored, (traits or ["no weight norm"]) + _stack(stored, source)


def _numbers(tensor: LazyTensor, name: str, source: str) -> Array:
    """The array of a weight or bias, if it is one."""
    try:
        array = tensor.array()
    except ValueError as error:
        raise CheckpointError(f"{source}: {name[:120]}: {error}") from None
    if array.dtype.kind != "f" or array.dtype.itemsize > 8 or not 1 <= array.ndim <= 3:
        raise CheckpointError(
            f"{source}: {name[:120]} is {array.dtype} of shape {list(array.shape)[:8]}; "
            "a weight or bias of floating-point numbers was expected"
        )
    return array


def _join(stored: Stored, base: str, parts: dict[str, Array], source: str) -> None:
    """Adds one module's weight (or weight-norm pair) and bias."""
    if "bias" in parts:
        stored[f"{base}.bias"] = parts["bias"]
    if "weight" in parts and len(parts.keys() - {"bias"}) == 1:
        stored[f"{base}.weight"] = parts["weight"]
    elif parts.keys() - {"bias"} == {"g", "v"}:
        g, v = parts["g"], parts["v"]
        if v.ndim != 3 or g.shape not in ((v.shape[0], 1, 1), (v.shape[0],)):
            raise CheckpointError(
                f"{source}: {base} has weight norm of shapes {list(g.shape)} and {list(v.shape)}; "
                "norms over every axis but the first were expected"
            )
        stored[f"{base}.weight"] = WeightNorm(g.reshape(-1, 1, 1), v)
    elif parts.keys() != {"bias"}:
        raise CheckpointError(
            f"{source}: {base} has {', '.join(sorted(parts))}; expected a weight, "
            "or weight_g and weight_v together"
        )


def _stack(stored: Stored, source: str) -> list[str]:
    """Joins per-layer ``cond_layers``, and ``res_layers`` with ``skip_layers``; says so."""
    traits = []
    lists: dict[tuple[str, str], dict[int, list[str]]] = {}
    for name in stored:
        match = re.fullmatch(r"(WN\.\d+)\.(cond|res|skip)_layers\.(\d+)\.(weight|bias)", name)
        if match:
            flow, kind, layer, part = match.groups()
            lists.setdefault((flow, part), {}).setdefault(int(layer), []).append(kind)
    if any("cond" in kinds for layers in lists.values() for kinds in layers.values()):
        traits.append("one cond layer per WN layer")
    if any("skip" in kinds for layers in lists.values() for kinds in layers.values()):
        traits.append("separate res_layers and skip_layers")
    for (flow, part), layers in lists.items():
        cond = [i for i in sorted(layers) if "cond" in layers[i]]
        if cond:
            target = f"{flow}.cond_layer.{part}"
            _put(stored, target, [f"{flow}.cond_layers.{i}.{part}" for i in cond], source)
        skip = [i for i in sorted(layers) if "skip" in layers[i]]
        for i in skip:
            # The last layer has no residual; an unused res layer there is left out.
            last = i == skip[-1]
            names = [f"{flow}.{kind}_layers.{i}.{part}" for kind in ("res", "skip")]
            if last:
                stored.pop(names[0], None)
            _put(stored, f"{flow}.res_skip_layers.{i}.{part}", names[last:], source)
    return traits


def _put(stored: Stored, target: str, names: list[str], source: str) -> None:
    """Replaces ``names`` by their concatenation along the output channels, as ``target``."""
    missing = [name for name in names if name not in stored]
    if missing or target in stored:
        what = f"no tensor named {missing[0]}" if missing else f"{target} twice, whole and in parts"
        raise CheckpointError(f"{source}: {what}; the checkpoint is incomplete or mixed")
    parts = [stored.pop(name) for name in names]
    if len({_shape(part)[1:] for part in parts}) > 1:
        raise CheckpointError(f"{source}: the parts of {target} have different shapes")
    pairs = [part for part in parts if isinstance(part, WeightNorm)]
    if len(pairs) == len(parts):
        stored[target] = WeightNorm(
            np.concatenate([pair.g for pair in pairs]), np.concatenate([pair.v for pair in pairs])
        )
    else:
        stored[target] = np.concatenate(
            [part.fold() if isinstance(part, WeightNorm) else part for part in parts]
        )
