"""The run itself: every shape asked for, gate first, fastglow and its peers side by side."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from fastglow.bench import gate, trial
from fastglow.bench.candidates import Ours, Shape
from fastglow.bench.devices import Device, Meter
from fastglow.bench.kernels import breakdown
from fastglow.bench.model import Inputs, Model, make_inputs, published, random_model, stored_model
from fastglow.bench.peers import Peer
from fastglow.bench.published import Published, published_graph
from fastglow.bench.record import OURS, Case, Ceilings, KernelRow
from fastglow.bench.rounds import interleave
from fastglow.config import WaveGlowConfig

Tick = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure; tuples are swept.

    Attributes:
        channels: Of WN, for random models; unused where a model is named.
        model: A checkpoint or a voice.
        options: What reading it needs beside its name: hop, rate, dialect.
        seconds: Lengths of audio.
        batches: Rows.
        precisions: Of fastglow.
        conditioning: Of fastglow: "auto", "phases" or "published".
        runs: Rounds that count.
        seed: Of weights, mel and noise.
        kernels: Whether to time each kernel too.
    """

    channels: tuple[int, ...] = (256,)
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    seconds: tuple[float, ...] = (1.0, 10.0)
    batches: tuple[int, ...] = (1,)
    precisions: tuple[str, ...] = ("fp32",)
    conditioning: str = "auto"
    runs: int = 10
    seed: int = 0
    kernels: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the path of a model."""
        values = {**asdict(self), "model": Path(self.model).name if self.model else None}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


@dataclass(frozen=True, slots=True)
class Point:
    """One case of a sweep; no channels where a model is named."""

    channels: int | None
    batch: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model with all that is made of it once, for every shape."""

    channels: int | None
    model: Model
    ours: tuple[tuple[Ours, Meter], ...]
    graph: Published | None
    expected: Mapping[int, gate.Expected]

    @property
    def config(self) -> WaveGlowConfig:
        """The model's hyperparameters."""
        return self.model.weights.config


class Sweep:
    """Measures case after case; a model stays loaded until another one is needed."""

    def __init__(
        self, settings: Settings, device: Device, peers: Sequence[Peer], ceilings: Ceilings
    ) -> None:
        """Remember what to measure, on what, against whom."""
        self.settings, self.device, self.peers = settings, device, tuple(peers)
        self.ceilings = ceilings
        channels: tuple[int | None, ...] = (None,) if settings.model else settings.channels
        shapes = itertools.product(channels, settings.batches, settings.seconds)
        self.points = [Point(*shape) for shape in shapes]
        self._loaded: Loaded | None = None
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Sweep:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loaded = None
        self._held.close()

    @property
    def ticks(self) -> int:
        """How often :meth:`measure` tells of a new stage."""
        precisions = len(self.settings.precisions)
        return 3 + 2 * precisions + len(self.peers) + self.settings.runs

    def measure(self, point: Point, tick: Tick = lambda stage: None) -> Case:
        """One case.

        Args:
            point: Of :attr:`points`.
            tick: Told what begins.

        Raises:
            FastglowError: The model cannot be read, or fastglow cannot run it here.
        """
        loaded = self._load(point.channels, tick)
        frames = _frames(loaded.config, point.seconds)
        inputs = self._inputs(loaded.model, frames, point.batch)
        with tempfile.TemporaryDirectory(prefix="fastglow-bench-") as folder:
            trials = self._trials(loaded, inputs, Path(folder), tick)
            case = self._timed(loaded, inputs, trials, tick)
        del trials  # the peers' memory, before the next shape
        self.device.release()
        return case

    def _load(self, channels: int | None, tick: Tick) -> Loaded:
        if self._loaded is not None and self._loaded.channels == channels:
            return self._loaded
        self._loaded = None
        self._held.close()
        self.device.release()
        settings = self.settings
        tick("the model")
        if settings.model:
            model = stored_model(settings.model, **settings.options)
        else:
            config = published(channels or 256)
            model = self._held.enter_context(random_model(config, settings.seed))
        ours = []
        for precision in settings.precisions:
            tick(f"loading {OURS} {precision}")
            threads = self.device.threads if self.device.name == "cpu" else None
            meter = Meter(self.device)
            load = partial(Ours, model, self.device.name, precision, settings.conditioning, threads)
            ours.append((meter.measure(load)[0], meter))
        tick("the float64 reference")
        lengths = [_frames(model.weights.config, seconds) for seconds in settings.seconds]
        longest = self._inputs(model, max(lengths), 1)
        expected = gate.references(model.weights, longest, lengths)
        graph = published_graph(model.weights) if self.peers else None
        self._loaded = Loaded(channels, model, tuple(ours), graph, expected)
        return self._loaded

    def _inputs(self, model: Model, frames: int, batch: int) -> Inputs:
        prefix = min(frames, gate.reference_frames(model.weights.config))
        return make_inputs(model, frames, batch, prefix, self.settings.seed + 1)

    def _trials(
        self, loaded: Loaded, inputs: Inputs, folder: Path, tick: Tick
    ) -> tuple[trial.Trial, ...]:
        """Every candidate through the gate, fastglow first."""
        expected, found = loaded.expected[inputs.frames], []
        for precision, (ours, meter) in zip(self.settings.precisions, loaded.ours, strict=True):
            tick(f"{OURS} {precision}")
            build = partial(ours.at, inputs)
            found.append(trial.attempt(OURS, precision, build, meter, inputs, expected))
        if loaded.graph is not None:
            shape = Shape(loaded.graph, inputs, self.device.threads, folder)
            for peer in self.peers:
                tick(peer.key)
                build = partial(peer.build, shape)
                meter = Meter(self.device)
                found.append(
                    trial.attempt(peer.key, peer.precision, build, meter, inputs, expected)
                )
        return tuple(found)

    def _timed(
        self, loaded: Loaded, inputs: Inputs, trials: tuple[trial.Trial, ...], tick: Tick
    ) -> Case:
        """The figures of all that passed the gate."""
        config, runs = loaded.config, self.settings.runs
        sound = [t for t in trials if t.candidate and not t.refused]
        timings = interleave(
            {t.key: t.candidate.call for t in sound if t.candidate},
            runs,
            self.device.clock,
            settle=self.device.settle,
            tick=lambda: tick("timing"),
        )
        tick("end to end")
        end_to_end = trial.time_end_to_end(sound, runs)
        return Case(
            model=loaded.model.label,
            channels=config.wn.n_channels,
            batch=inputs.batch,
            frames=inputs.frames,
            seconds=round(config.samples(inputs.frames) / config.sampling_rate, 4),
            rows=trial.make_rows(trials, timings, config, inputs, self.ceilings, end_to_end),
            kernels=self._kernels(loaded, inputs, sound) if self.settings.kernels else (),
        )

    def _kernels(
        self, loaded: Loaded, inputs: Inputs, sound: Sequence[trial.Trial]
    ) -> tuple[KernelRow, ...]:
        """The kernels of fastglow one by one, where its engine can show them and is right."""
        right = {t.precision for t in sound if t.name == OURS}
        found: list[KernelRow] = []
        for ours, _ in loaded.ours:
            engine = ours.vocoder.engine
            launches: Any = getattr(engine, "kernels", None)
            if launches is not None and engine.precision in right:
                listed = launches(inputs.frames, inputs.batch)
                found += breakdown(listed, self.device, self.ceilings, engine.precision)
        return tuple(found)


def _frames(config: WaveGlowConfig, seconds: float) -> int:
    """Mel frames of so much audio, at least one step of it."""
    least = -(-config.n_group // config.hop_length)
    return max(least, round(seconds * config.sampling_rate / config.hop_length))
