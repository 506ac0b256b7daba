"""The settings file: every mistake is named, and the example is valid and complete."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from fastglow.checkpoint import load_weights
from fastglow.config import MelConfig, WaveGlowConfig, WNConfig
from fastglow.errors import InputError
from fastglow.training.example import example
from fastglow.training.losses import LossConfig, Resolution
from fastglow.training.objective import TrainConfig, check_shapes
from fastglow.training.settings import (
    LIMITS,
    DataConfig,
    RunConfig,
    Settings,
    read_settings,
)
from fastglow.voices import find_voice

NEEDED = 'out = "o"\n[data]\ntrain = ["a.wav"]\n[train]\nsteps = 10\n'


def read(tmp_path: Path, text: str, **overrides: object) -> Settings:
    path = tmp_path / "t.toml"
    path.write_text(text)
    return read_settings(path, **overrides)


def test_left_out_keys_have_the_documented_defaults(tmp_path: Path) -> None:
    found = read(tmp_path, NEEDED)
    assert found == Settings("o", TrainConfig(10), DataConfig(("a.wav",)))


def test_the_example_is_valid_and_shows_the_defaults(tmp_path: Path) -> None:
    found = read(tmp_path, example())
    assert found.train == TrainConfig(steps=found.train.steps)
    assert found.run == RunConfig()
    assert found.data == DataConfig(("recordings",))
    assert found.model == WaveGlowConfig(wn=WNConfig(n_channels=64))
    assert (found.objective, found.init) == ("inverse", None)
    assert found.model is not None
    check_shapes(found.model, found.train)


def test_the_example_is_the_recorded_recipe(tmp_path: Path) -> None:
    """The settings that the log of experiments names for the shipped voice."""
    train = read(tmp_path, example()).train
    assert (train.steps, train.batch, train.learning_rate) == (31000, 16, 4.5e-4)
    assert (train.warmup, train.muon) == (1000, True)
    bands = [(r.n_fft, r.n_mels) for r in train.loss.resolutions]
    assert bands == [(512, 40), (1024, 80), (2048, 160)]


@pytest.mark.parametrize(
    "kind",
    [
        *(Settings, DataConfig, RunConfig),
        *(TrainConfig, LossConfig, Resolution),
        *(WaveGlowConfig, WNConfig, MelConfig),
    ],
)
def test_the_example_mentions_every_key(kind: type) -> None:
    for item in fields(kind):
        mention = rf"(?m)^#? ?{item.name} = |^\[+[a-z.]*\b{item.name}\]"
        assert re.search(mention, example()), item.name


def test_every_number_has_limits_or_checks_of_its_own() -> None:
    def walk(kind: type, at: str) -> None:
        for name, hint in get_type_hints(kind).items():
            inner = next((t for t in (hint, *getattr(hint, "__args__", ())) if is_dataclass(t)), 0)
            if inner is WaveGlowConfig:
                continue  # it checks itself
            if inner:
                walk(inner, f"{at}{name}.")
            elif re.search(r"\b(int|float)\b", str(hint)):
                assert at + name in LIMITS
                LIMITS_LEFT.discard(at + name)

    LIMITS_LEFT = set(LIMITS)
    walk(Settings, "")
    assert not LIMITS_LEFT


MISTAKES = {
    "unknown": ("[train]\nstep = 1", r"unknown key train\.step; did you mean steps\?"),
    "far": ("zebra = 1", r"unknown key zebra; known: out, train, data"),
    "missing": (NEEDED[len('out = "o"') :], r"out is missing"),
    "missing inside": ('out = "o"\n[data]\n[train]\n', r"train is missing"),
    "text": (NEEDED + 'batch = "8"', r"train\.batch is '8'; expected a whole number from 1"),
    "fraction": (NEEDED + "batch = 1.5", r"train\.batch is '1\.5'; expected a whole number"),
    "truth": (NEEDED + "batch = true", r"train\.batch is 'true'; expected a whole number"),
    "range": (NEEDED + "ema = 1.0", r"train\.ema is '1\.0'; expected a number from 0 to"),
    "infinite": (NEEDED + "learning_rate = inf", r"learning_rate is 'inf'; expected a number"),
    "bool": (NEEDED + "muon = 1", r"train\.muon is '1'; expected true or false"),
    "list": (NEEDED + "betas = [0.9]", r"train\.betas is '\[0\.9\]'; expected a list of 2"),
    "choice": ('objective = "gan"\n' + NEEDED, r"objective is 'gan'; expected 'inverse' or"),
    "table": ("model = 3\n" + NEEDED, r"model is '3'; expected a table"),
    "model": (NEEDED + "[model]\nn_group = 7", r"n_group=7; expected an even number"),
    "nested": (NEEDED + "[model.wn]\nlayers = 7", r"unknown key model\.wn\.layers; .*n_layers"),
    "deep": (
        NEEDED + "[[train.loss.resolutions]]\nn_fft = 8\nhop = 2",
        r"train\.loss\.resolutions\.n_fft is '8'; expected a whole number from 16",
    ),
    "syntax": ("out = ", r"cannot be read as TOML"),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"t\.toml: .*{message}"):
        read(tmp_path, text)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"fastglow train --example > none\.toml"):
        read_settings(tmp_path / "none.toml")


def test_the_command_line_has_the_last_word(tmp_path: Path) -> None:
    found = read(tmp_path, NEEDED, out=Path("elsewhere"), steps=77, init="glow-64")
    assert (found.out, found.train.steps) == (str(Path.cwd() / "elsewhere"), 77)
    assert found.init == "glow-64"
    with pytest.raises(InputError, match=r"train\.steps is '0'"):
        read(tmp_path, NEEDED, steps=0)


def test_lengths_must_fit(config: WaveGlowConfig) -> None:
    loss = LossConfig(resolutions=(Resolution(256, 64),))
    check_shapes(config, TrainConfig(1, segment=512, loss=loss))
    with pytest.raises(InputError, match="segments of 500"):
        check_shapes(config, TrainConfig(1, segment=500, loss=loss))
    with pytest.raises(InputError, match="128 samples under an STFT of 256"):
        check_shapes(config, TrainConfig(1, segment=128, loss=loss))
    odd = LossConfig(resolutions=(Resolution(256, 100),))
    with pytest.raises(InputError, match="STFT of 256 has hop 100"):
        check_shapes(config, TrainConfig(1, segment=512, loss=odd))
    with pytest.raises(InputError, match=r"train\.flows is 5; expected at most the model's 4"):
        check_shapes(config, TrainConfig(1, segment=512, loss=loss, flows=5))


@pytest.mark.parametrize(
    ("stage", "after", "steps", "batch", "flows", "rate", "hum", "adversary"),
    [
        ("1", "glow-64", 23905, 32, 0, 3e-4, 1.0, 0.0),
        ("2", "runs/glow-64-1/voice", 17875, 32, 0, 1.2e-4, 1.0, 0.0),
        ("3-a", "runs/glow-64-2/voice", 22285, 16, 0, 6e-5, 3.0, 2.0),
        ("3-b", "runs/glow-64-2/voice", 25857, 16, 8, 5e-5, 3.0, 3.0),
    ],
)
def test_the_shipped_voice_s_recipes_are_what_its_card_says(
    stage: str, after: str, steps: int, batch: int, flows: int, rate: float, hum: float,
    adversary: float,
) -> None:  # fmt: skip
    recipe = read_settings(find_voice(None) / f"stage-{stage}.toml")
    check_shapes(load_weights(find_voice(None)).config, recipe.train)
    train = recipe.train
    assert (recipe.init, train.steps, train.batch) == (after, steps, batch)
    assert (train.flows, train.learning_rate, train.likelihood) == (flows, rate, 0.03)
    assert (train.loss.hum, train.adversary.weight) == (hum, adversary)
    assert [each.n_fft for each in train.loss.resolutions] == [512, 1024, 2048, 4096]
