"""Results as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import compress
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastglow.bench.record import OURS, Case, Ceilings, KernelRow, Result, Row

NONE = "–"
WIDE = 120  # columns of a terminal that hold every figure
COLUMNS = (  # heading, and whether a narrow terminal shows it
    ("\nerror", True),
    ("p20\nms", False),
    ("p50\nms", True),
    ("p80\nms", False),
    ("\nkHz", True),
    ("× real\ntime", True),
    ("\nTFLOP/s", False),
    ("% of\nceiling", True),
    ("× best\npeer", True),
    ("end to\nend ms", False),
    ("\nMB", False),
)
KERNEL_COLUMNS = ("launches", "µs", "% of all", "floor µs", "% of floor", "TFLOP/s", "GB/s")


def print_result(console: Console, result: Result) -> None:
    """Everything that a run found."""
    print_header(console, result.about, result.ceilings)
    for case in result.cases:
        print_case(console, case)


def print_header(console: Console, about: Mapping[str, Any], ceilings: Ceilings) -> None:
    """Machine, versions, commit, switches and ceilings, a line each."""
    machine, environment = about["machine"], about["environment"]
    if "gpu" in machine:
        gigabytes = machine["gpu_memory_bytes"] / 2**30
        _line(
            console,
            "gpu",
            f"{machine['gpu']}, {gigabytes:.0f} GiB, compute capability "
            f"{machine['compute_capability']}, driver {machine['driver_version']}, "
            f"limit {machine['power.limit']}, up to {machine['clocks.max.sm']}",
        )
    _line(
        console,
        "machine",
        f"{machine['processor']} ({machine['target']}, {machine['lanes']} lanes), "
        f"{machine['threads_used']} of {machine['cores_available']} cores, {machine['system']}, "
        f"huge pages: {machine['huge_pages']}, load {(machine['load_average'] or [NONE])[0]}",
    )
    _line(console, "versions", ", ".join(f"{k} {v}" for k, v in about["versions"].items()))
    _line(console, "commit", f"{about['commit']}{' + local changes' if about['dirty'] else ''}")
    switches = ", ".join(f"{k}={v}" for k, v in environment.items())
    _line(console, "switches", switches or "none set")
    limits = [f"{p} {number(v)} TFLOP/s" for p, v in ceilings.tflops.items()]
    if ceilings.bandwidth:
        limits.append(f"copy {number(ceilings.bandwidth)} TB/s")
    _line(console, "ceilings", ", ".join(limits))


def _line(console: Console, name: str, text: str) -> None:
    console.print(Text(f"{name:<10}{text}"), soft_wrap=True)


def print_case(console: Console, case: Case) -> None:
    """One shape's figures, and why a candidate has none."""
    shown = [essential or console.width >= WIDE for _, essential in COLUMNS]
    table = _table(case.title, ["", "", *compress([name for name, _ in COLUMNS], shown)], 2)
    for row in case.rows:
        style = "bold" if row.name == OURS else ""
        table.add_row(row.name, row.precision, *compress(_cells(row), shown), style=style)
    console.print(table)
    for row in case.rows:
        if row.refused:
            line = f"{row.name} {row.precision} has no speed: {row.refused}"
            console.print(Text(line, style="red"), soft_wrap=True)
    for precision in dict.fromkeys(kernel.precision for kernel in case.kernels):
        _print_kernels(console, [k for k in case.kernels if k.precision == precision])


def _table(title: str, headings: Iterable[str], words: int) -> Table:
    """An empty table; all columns but the first few hold numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < words else "right", no_wrap=True)
    return table


def _cells(row: Row) -> tuple[str, ...]:
    error = NONE if row.error is None else f"{row.error:.1e}"
    memory = NONE if row.memory_bytes is None else f"{row.memory_bytes / 1e6:,.0f}"
    speed = row.speed
    if speed is None:
        return (error, *[NONE] * 9, memory)
    return (
        error,
        *(number(1e3 * seconds) for seconds in (speed.p20, speed.p50, speed.p80)),
        number(speed.khz),
        number(speed.times_real_time),
        number(speed.tflops),
        NONE if speed.of_ceiling is None else f"{100 * speed.of_ceiling:.1f}",
        NONE if speed.times_fastest_peer is None else f"{speed.times_fastest_peer:.2f}",
        NONE if speed.end_to_end is None else number(1e3 * speed.end_to_end),
        memory,
    )


def _print_kernels(console: Console, kernels: list[KernelRow]) -> None:
    title = f"kernels of {OURS} {kernels[0].precision}, one inference"
    table = _table(title, ["", *KERNEL_COLUMNS], 1)
    total = sum(kernel.seconds for kernel in kernels)
    for k in kernels:
        table.add_row(
            k.name,
            str(k.launches),
            number(1e6 * k.seconds),
            f"{100 * k.seconds / total:.1f}",
            number(1e6 * k.floor_seconds),
            f"{100 * k.floor_seconds / k.seconds:.1f}",
            number(k.flop / k.seconds / 1e12),
            number(k.bytes / k.seconds / 1e9),
        )
    floor = sum(kernel.floor_seconds for kernel in kernels)
    share = f"{100 * floor / total:.1f}"
    table.add_row("all", "", number(1e6 * total), "100", number(1e6 * floor), share, "", "")
    console.print(table)


def number(value: float) -> str:
    """Three significant figures, and never an exponent."""
    if value == 0 or not abs(value) < 1e12:
        return f"{value:g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{float(f'{value:.3g}')}"
