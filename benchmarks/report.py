"""How results are written: a header and aligned tables for people, JSON for plots."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.peers import Candidate
from benchmarks.rounds import Timing
from fastglow.config import WaveGlowConfig
from fastglow.plan.cost import cost


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate at one length.

    Attributes:
        name: The runtime.
        form: Which arithmetic it does.
        settings: How it was set.
        load_seconds: From weights or file to ready.
        error: Largest difference from float64 over the largest magnitude.
        p20: Seconds; p50 and p80 likewise.
        rtf: p50 seconds of work a second of audio.
        times_real_time: Its inverse.
        times_fastest_peer: Above 1 is faster than the fastest peer (median over rounds).
        gflops: GFLOP/s of the arithmetic that this form really does, at p50.
    """

    name: str
    form: str
    settings: str
    load_seconds: float
    error: float
    p20: float
    p50: float
    p80: float
    rtf: float
    times_real_time: float
    times_fastest_peer: float | None
    gflops: float


def rows(
    config: WaveGlowConfig,
    frames: int,
    candidates: list[Candidate],
    errors: dict[str, float],
    timings: dict[str, Timing],
) -> list[Row]:
    """A row for each candidate, in the order given; the first is ours, the rest are peers."""
    peers = [timings[c.name] for c in candidates[1:]]
    fastest = min(peers, key=lambda t: t.quantile(0.5)) if peers else None
    samples = config.samples(frames)
    out = []
    for c in candidates:
        timing = timings[c.name]
        median = timing.quantile(0.5)
        rtf = median / (samples / config.sampling_rate)
        work = cost(config, c.form).flop_per_sample * samples
        out.append(
            Row(
                name=c.name,
                form=c.form,
                settings=c.settings,
                load_seconds=round(c.load_seconds, 3),
                error=errors[c.name],
                p20=timing.quantile(0.2),
                p50=median,
                p80=timing.quantile(0.8),
                rtf=rtf,
                times_real_time=1 / rtf,
                times_fastest_peer=timing.speedup_over(fastest) if fastest else None,
                gflops=work / median / 1e9,
            )
        )
    return out


def print_header(console: Console, about: dict[str, Any]) -> None:
    """Machine, versions, commit and switches, a line each."""
    machine, environment = about["machine"], about["environment"]
    console.print(
        f"machine   {machine['processor']} ({machine['target']}, {machine['lanes']} lanes), "
        f"{machine['threads_used']} of {machine['cores_available']} cores, {machine['system']}, "
        f"huge pages: {machine['huge_pages']}, load {machine['load_average'][0]}"
    )
    console.print("versions  " + ", ".join(f"{k} {v}" for k, v in about["versions"].items()))
    console.print(f"commit    {about['commit']}{' + local changes' if about['dirty'] else ''}")
    switches = ", ".join(f"{k}={v}" for k, v in environment.items()) or "none set"
    console.print(f"switches  {switches}")


def print_errors(console: Console, errors: dict[str, float], tolerance: float) -> None:
    """The gate: every candidate's error against float64."""
    parts = (f"{name} {error:.1e}" for name, error in errors.items())
    console.print(f"error against float64 (ours must be ≤ {tolerance:.0e}): " + ", ".join(parts))


def print_table(console: Console, title: str, found: list[Row]) -> None:
    """One length's figures."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("runtime", no_wrap=True)
    names = ("p20 s", "p50 s", "p80 s", "RTF", "× real time", "× best peer", "GFLOP/s", "load s")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for r in found:
        ratio = "" if r.times_fastest_peer is None else f"{r.times_fastest_peer:.2f}"
        table.add_row(
            r.name,
            f"{r.p20:.3f}",
            f"{r.p50:.3f}",
            f"{r.p80:.3f}",
            f"{r.rtf:.3f}",
            f"{r.times_real_time:.2f}",
            ratio,
            f"{r.gflops:.0f}",
            f"{r.load_seconds:.1f}",
        )
    console.print(table)


def as_json(found: list[Row]) -> list[dict[str, Any]]:
    """Rows as plain dictionaries, rounded to four significant figures."""

    def short(value: Any) -> Any:
        return float(f"{value:.4g}") if isinstance(value, float) else value

    return [{key: short(value) for key, value in asdict(row).items()} for row in found]
