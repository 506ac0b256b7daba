"""One candidate through the gate, and its row of figures once it has been timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fastglow.bench.candidates import Candidate
from fastglow.bench.devices import Meter
from fastglow.bench.gate import Expected, audio_error, bar, comparable
from fastglow.bench.model import Float32, Inputs
from fastglow.bench.record import OURS, Ceilings, Row, Speed, short
from fastglow.bench.rounds import Timing, host_clock, interleave
from fastglow.config import WaveGlowConfig
from fastglow.plan.cost import cost

Key = tuple[str, str]  # program, precision
REASON = 160  # characters of somebody else's error message that are shown


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a candidate before any timing.

    Attributes:
        name: The program.
        precision: Of its products.
        bar: The largest error that may pass.
        candidate: Loaded; None if that failed.
        first_seconds: Of its first call.
        memory_bytes: The most that it used.
        error: Of its audio; None if there was none.
        refused: Why it is not timed; None if it may be.
    """

    name: str
    precision: str
    bar: float
    candidate: Candidate | None = None
    first_seconds: float | None = None
    memory_bytes: int | None = None
    error: float | None = None
    refused: str | None = None

    @property
    def key(self) -> Key:
        """Its name among the candidates."""
        return self.name, self.precision


def attempt(
    name: str,
    precision: str,
    build: Callable[[], Candidate],
    meter: Meter,
    inputs: Inputs,
    expected: Expected,
) -> Trial:
    """Load a candidate, let it run once, and hold its audio against the reference.

    Whatever goes wrong in it is the trial's outcome: one candidate that runs out of memory must
    not end a sweep.
    """
    limit = bar(precision, expected.fp32_error)
    candidate: Candidate | None = None
    seconds = 0.0

    def first() -> tuple[Candidate, Float32]:
        nonlocal seconds
        loaded = build()
        begin = time.perf_counter()
        audio = loaded.audio()
        seconds = time.perf_counter() - begin
        return loaded, audio

    try:
        (candidate, audio), memory = meter.measure(first)
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[0][:REASON]
        return Trial(name, precision, limit, refused=f"failed: {type(error).__name__}: {text}")
    wrong = short(audio_error(audio, expected, inputs.noise.shape))
    refused = None if wrong <= limit else f"error {wrong:.1e} is over {limit:.1e}"
    return Trial(candidate.name, precision, limit, candidate, seconds, memory, wrong, refused)


def make_rows(
    trials: Iterable[Trial],
    timings: Mapping[Key, Timing],
    config: WaveGlowConfig,
    inputs: Inputs,
    ceilings: Ceilings,
    end_to_end: Mapping[Key, float],
) -> tuple[Row, ...]:
    """A row for each trial, with its speed if it was timed."""
    trials = tuple(trials)
    samples = config.samples(inputs.frames) * inputs.batch
    rows = []
    for trial in trials:
        speed = None
        if trial.candidate and trial.key in timings:
            timing = timings[trial.key]
            median = timing.quantile(0.5)
            work = cost(config, trial.candidate.form).flop_per_sample * samples
            tflops, ceiling = work / median / 1e12, ceilings.tflops.get(trial.precision)
            fastest = _fastest_peer(trial, trials, timings)
            speed = Speed(
                calls=len(timing.seconds),
                p20=short(timing.quantile(0.2)),
                p50=short(median),
                p80=short(timing.quantile(0.8)),
                khz=short(samples / median / 1e3),
                times_real_time=short(samples / config.sampling_rate / median),
                tflops=short(tflops),
                of_ceiling=short(tflops / ceiling) if ceiling else None,
                times_fastest_peer=short(timing.speedup_over(fastest)) if fastest else None,
                end_to_end=short(end_to_end[trial.key]) if trial.key in end_to_end else None,
            )
        rows.append(_row(trial, speed))
    return tuple(rows)


def _row(trial: Trial, speed: Speed | None) -> Row:
    candidate, first = trial.candidate, trial.first_seconds
    return Row(
        name=trial.name,
        precision=trial.precision,
        form=candidate.form if candidate else "",
        settings=candidate.settings if candidate else "",
        load_seconds=short(candidate.load_seconds) if candidate else 0.0,
        first_seconds=None if first is None else short(first),
        memory_bytes=trial.memory_bytes,
        error=trial.error,
        bar=short(trial.bar),
        refused=trial.refused,
        speed=speed,
    )


def _fastest_peer(
    trial: Trial, trials: Iterable[Trial], timings: Mapping[Key, Timing]
) -> Timing | None:
    """The fastest peer that is no less precise than this candidate."""
    peers = [
        timings[other.key]
        for other in trials
        if other.name != OURS
        and other.key in timings
        and comparable(other.precision, trial.precision)
    ]
    return min(peers, key=lambda timing: timing.quantile(0.5), default=None)


def time_end_to_end(trials: Iterable[Trial], runs: int) -> dict[Key, float]:
    """Median seconds of a user's call, for the candidates that have one."""
    found = {}
    for trial in trials:
        if trial.candidate and trial.candidate.end_to_end:
            call = trial.candidate.end_to_end
            found[trial.key] = interleave({0: call}, runs, host_clock)[0].quantile(0.5)
    return found
