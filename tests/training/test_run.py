"""A run survives what happens to it: stops, bad steps, damaged files."""

import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from fastglow.checkpoint import load_weights
from fastglow.config import WaveGlowConfig
from fastglow.errors import EngineError, InputError
from fastglow.training.check import Recording
from fastglow.training.losses import LossConfig, Resolution
from fastglow.training.objective import TrainConfig
from fastglow.training.run import Run, check_folder
from fastglow.training.settings import DataConfig, RunConfig, Settings
from fastglow.training.start import start_network
from fastglow.training.team import Team
from fastglow.training.validation import Validation

CPU = torch.device("cpu")


class Witness:
    """Remembers what a run tells, and may act on a step."""

    def __init__(self, act: Callable[[int], None] = lambda done: None) -> None:
        self.steps: list[int] = []
        self.said: list[str] = []
        self.act = act

    def step(self, done: int, losses: Mapping[str, float] | None) -> None:
        self.steps.append(done)
        self.act(done)

    def say(self, message: str) -> None:
        self.said.append(message)


def settings_of(config: WaveGlowConfig, steps: int = 6, **changes: object) -> Settings:
    loss = LossConfig(resolutions=(Resolution(64, 16), Resolution(128, 32, 12)))
    train = TrainConfig(
        steps, batch=4, segment=512, learning_rate=4e-3, warmup=5, ema=0.9, loss=loss
    )
    run = RunConfig(
        checkpoint_every=2, keep=2, validate_every=3, validation_segments=6, log_every=1,
        tensorboard=False,
    )  # fmt: skip
    made = {"out": "o", "train": train, "data": DataConfig(("x",)), "model": config, "run": run}
    return Settings(**{**made, **changes})


@pytest.fixture
def recordings(waves: list[torch.Tensor]) -> list[Recording]:
    return [Recording(Path(f"{i}.wav"), wave.numpy(), 1.0) for i, wave in enumerate(waves)]


def start(
    settings: Settings, out: Path, recordings: list[Recording], witness: Witness | None = None
) -> Run:
    network = start_network(settings, out.parent)
    team = Team(CPU)
    return Run(settings, network, out, recordings[:3], recordings[3:], team, witness or Witness())


def lines(out: Path, kind: str) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k != "steps_per_second"}
        for line in found
        if line["kind"] == kind
    ]


def assert_equal(a: object, b: object) -> None:
    """Bit for bit, through dictionaries and lists."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("objective", ["inverse", "likelihood"])
def test_stopped_and_resumed_equals_never_stopped(
    config: WaveGlowConfig, recordings: list[Recording], tmp_path: Path, number: int,
    objective: str,
) -> None:  # fmt: skip
    settings, before = settings_of(config, objective=objective), signal.getsignal(number)
    assert start(settings, tmp_path / "whole", recordings).run() == (6, 0, False)
    assert signal.getsignal(number) is before

    def stop(done: int) -> None:
        if done == 3:
            signal.raise_signal(number)

    out, witness = tmp_path / "parts", Witness(stop)
    assert start(settings, out, recordings, witness).run() == (3, 0, True)
    assert witness.steps == [1, 2, 3]
    assert signal.getsignal(number) is before
    with (out / "log.jsonl").open("a") as file:  # what a kill after the last state leaves
        file.write('{"kind": "train", "step": 4, "loss": 1}\n{"kind": "tr')
    witness = Witness()
    assert start(settings, out, recordings, witness).run() == (6, 0, False)
    assert witness.steps == [4, 5, 6]
    assert "going on from step 3 of 6" in witness.said[0]
    states = [torch.load(tmp_path / d / "state.pt", weights_only=True) for d in ("whole", "parts")]
    assert_equal(*states)
    for name in ("voice/model.safetensors", "checkpoints/step-00000006/model.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for kind in ("train", "validation"):
        assert lines(out, kind) == lines(tmp_path / "whole", kind)
    assert [line["step"] for line in lines(out, "validation")] == [3, 6]


def test_the_last_checkpoints_are_kept(
    config: WaveGlowConfig, recordings: list[Recording], tmp_path: Path
) -> None:
    run = start(settings_of(config, steps=7), tmp_path / "o", recordings)
    run.run()
    kept = sorted(p.name for p in (tmp_path / "o" / "checkpoints").iterdir())
    assert kept == ["step-00000006", "step-00000007"]
    voice, expected = load_weights(tmp_path / "o" / "voice"), run.voice()
    assert voice.config == config
    assert all((voice[name] == expected[name]).all() for name in expected)
    assert "trained by fastglow, inverse, 7 steps" in voice.provenance.dialect
    assert not list((tmp_path / "o").rglob("*.part"))


def spoil(run: Run, bad: Callable[[int], bool]) -> None:
    draw = run.trainer._draw

    def drawn(step: int) -> None:
        draw(step)
        if bad(step):
            run.trainer.audio.fill_(float("nan"))

    run.trainer._draw = drawn  # type: ignore[method-assign]


def test_bad_steps_are_skipped_and_counted(
    config: WaveGlowConfig, recordings: list[Recording], tmp_path: Path
) -> None:
    run = start(settings_of(config, steps=12), tmp_path / "o", recordings)
    spoil(run, lambda step: step in (3, 4, 8))
    assert run.run() == (12, 3, False)
    assert [line["skipped"] for line in lines(tmp_path / "o", "train")] == (
        [0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    )
    assert torch.isfinite(run.trainer.weights).all()
    again = start(settings_of(config, steps=14), tmp_path / "o", recordings)
    spoil(again, lambda step: step == 13)
    assert again.run() == (14, 4, False)


def test_bad_steps_without_end_stop_the_run_and_leave_the_last_checkpoint(
    config: WaveGlowConfig, recordings: list[Recording], tmp_path: Path
) -> None:
    run = start(settings_of(config, steps=100), tmp_path / "o", recordings)
    spoil(run, lambda step: step >= 5)
    with pytest.raises(
        EngineError, match=r"in a row were not finite; .*loss is nan.*learning_rate"
    ):
        run.run()
    assert run.trainer.done < 40
    state = torch.load(tmp_path / "o" / "state.pt", weights_only=True)
    assert state["done"] == 4
    assert torch.isfinite(state["weights"]).all()
    assert "4 steps" in load_weights(tmp_path / "o" / "voice").provenance.dialect


def test_changed_settings_are_told_and_other_models_refused(
    config: WaveGlowConfig, recordings: list[Recording], tmp_path: Path
) -> None:
    out = tmp_path / "o"
    start(settings_of(config, steps=2), out, recordings).run()
    witness = Witness()
    assert start(settings_of(config, steps=3), out, recordings, witness).run().done == 3
    assert "settings have changed: steps 3 for 2" in witness.said
    witness = Witness()
    assert start(settings_of(config, steps=3), out, recordings, witness).run() == (3, 0, False)
    assert witness.said == ["all 3 steps are done; raise train.steps to go on"]
    with pytest.raises(InputError, match=r"state\.pt: .*other hyperparameters"):
        start(settings_of(WaveGlowConfig(**{**small(config), "n_flows": 2})), out, recordings)
    with pytest.raises(InputError, match=r"state\.pt: .*another objective"):
        start(settings_of(config, objective="likelihood"), out, recordings)
    (out / "state.pt").write_bytes((out / "state.pt").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"state\.pt: cannot be read as a training state"):
        start(settings_of(config), out, recordings)


def small(config: WaveGlowConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__slots__}


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    check_folder(tmp_path / "new", fresh=True)
    (tmp_path / "voice").mkdir()
    with pytest.raises(InputError, match="a voice without the state"):
        check_folder(tmp_path, fresh=False)
    (tmp_path / "state.pt").touch()
    check_folder(tmp_path, fresh=False)
    with pytest.raises(InputError, match="leave out --fresh"):
        check_folder(tmp_path, fresh=True)


@pytest.mark.parametrize("objective", ["inverse", "likelihood"])
def test_starts_from_a_checkpoint(
    config: WaveGlowConfig, recordings: list[Recording], tmp_path: Path, objective: str
) -> None:
    start(settings_of(config, steps=2), tmp_path / "o", recordings).run()
    tuned = settings_of(config, init="o/voice", model=None, objective=objective)
    network = start_network(tuned, tmp_path)
    expected = load_weights(tmp_path / "o" / "voice")
    assert network.config == config
    for name, found in network.to_tensors().items():
        torch.testing.assert_close(
            torch.tensor(found).double(), torch.tensor(expected[name]), atol=1e-5, rtol=1e-5
        )
    other = settings_of(WaveGlowConfig(), init="o/voice")
    with pytest.raises(InputError, match=r"other hyperparameters.*n_flows 4 for 12"):
        start_network(other, tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        start_network(settings_of(config, init="nobody"), tmp_path)


def test_validation_is_the_same_every_time_and_knows_better_from_worse(
    config: WaveGlowConfig, recordings: list[Recording], tmp_path: Path
) -> None:
    settings = settings_of(config, steps=40)
    run = start(settings, tmp_path / "o", recordings)
    validation = Validation(recordings[3:], config, settings.train, 6, CPU)
    before = validation.scores(run.trainer.averaged())
    assert validation.scores(run.trainer.averaged()) == before
    run.run()
    after = validation.scores(run.trainer.averaged())
    assert after["loss"] < 0.8 * before["loss"]
    assert after["log_mel_l1"] < before["log_mel_l1"]
    assert lines(tmp_path / "o", "validation")[-1]["log_mel_l1"] == after["log_mel_l1"]
    clip = validation.clip(run.trainer.averaged())
    assert clip.audio.shape == clip.recorded.shape == (8000,)
    wave = recordings[3].wave / 32768
    assert (abs(clip.recorded - wave[:8000]) < 1e-6).all()


def test_tensorboard_gets_scalars_audio_and_pictures(
    config: WaveGlowConfig, recordings: list[Recording], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunConfig(validate_every=2, log_every=1, validation_segments=2)
    start(settings_of(config, steps=2, run=run), tmp_path / "o", recordings).run()
    events = EventAccumulator(str(tmp_path / "o" / "tensorboard")).Reload()
    tags = events.Tags()
    assert {"train/loss", "train/learning_rate", "validation/log_mel_l1"} <= set(tags["scalars"])
    assert set(tags["audio"]) == {"clip/generated", "clip/recorded"}
    assert tags["images"] == ["clip/mels"]
    logged = [line["loss"] for line in lines(tmp_path / "o", "train")]
    assert [s.value for s in events.Scalars("train/loss")] == pytest.approx(logged)


def test_tensorboard_that_is_not_there_is_said_once(
    config: WaveGlowConfig, recordings: list[Recording], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    witness = Witness()
    settings = settings_of(config, steps=1, run=RunConfig())
    start(settings, tmp_path / "o", recordings, witness).run()
    assert [s for s in witness.said if "pip install tensorboard" in s] == witness.said[:1]
    assert not (tmp_path / "o" / "tensorboard").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("objective", ["inverse", "likelihood"])
def test_on_the_gpu(
    config: WaveGlowConfig, recordings: list[Recording], tmp_path: Path, objective: str
) -> None:
    settings = settings_of(config, steps=40, objective=objective)
    network = start_network(settings, tmp_path)
    team = Team(torch.device("cuda", 0))
    run = Run(settings, network, tmp_path / "o", recordings[:3], recordings[3:], team, Witness())
    spoil(run, lambda step: step == 8)
    assert run.run() == (40, 1, False)
    assert torch.isfinite(run.trainer.weights).all()
    first, *_, last = [line["loss"] for line in lines(tmp_path / "o", "validation")]
    assert last < first
    assert load_weights(tmp_path / "o" / "voice").config == config
