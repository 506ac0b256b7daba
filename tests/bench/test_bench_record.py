"""Results as JSON, as tables and as pictures."""

import io
import json
from dataclasses import asdict, replace

import pytest
from rich.console import Console

from fastglow.bench import record, table
from fastglow.bench.record import Case, Ceilings, KernelRow, Result, Row, Speed
from fastglow.errors import InputError

MACHINE = {
    "processor": "AMD EPYC 9005 96-Core Processor",
    "target": "znver5",
    "lanes": 16,
    "cores_available": 2,
    "threads_used": 2,
    "huge_pages": "madvise",
    "system": "Linux x86_64",
    "load_average": [0.1, 0.2, 0.3],
}
GPU = {
    "gpu": "NVIDIA H100 80GB HBM3",
    "compute_capability": "9.0",
    "gpu_memory_bytes": 85 * 10**9,
    "driver_version": "580.1",
    "power.limit": "700.00 W",
    "clocks.max.sm": "1980 MHz",
    "clocks.max.memory": "2619 MHz",
}
ABOUT = {
    "machine": MACHINE,
    "versions": {"python": "3.11.7"},
    "commit": "0123456789ab",
    "dirty": True,
    "environment": {},
}


def row(name="fastglow", khz=1000.0, **more):
    speed = Speed(10, 0.0101, 0.0202, 0.0303, khz, 45.4, 0.123, 0.5, 1.25, 0.06)
    made = Row(name, "fp32", "rewritten", "words", 1.0, 0.1, 123_000_000, 4e-7, 5e-6, None, speed)
    return replace(made, **more)


REFUSED = row("other", refused="error 1.0e-03 is over 5.0e-06", error=1e-3, speed=None)


def result(**about):
    cases = [
        Case("random", 64, batch, round(86 * s), s, (row(khz=batch * s * 100), REFUSED))
        for batch in (1, 8)
        for s in (1.0, 10.0)
    ]
    kernel = KernelRow("fp32", "gate", 96, 0.002, 1e9, 1e6, 0.001)
    cases[0] = replace(cases[0], kernels=(kernel,))
    settings = {"precisions": ["fp32"], "channels": [64]}
    limits = Ceilings({"fp32": 0.4}, 3.0)
    about = {**ABOUT, "machine": {**MACHINE, **about}}
    return Result("2026-01-01T00:00:00+00:00", "cpu", settings, about, limits, tuple(cases))


def shown(width=150, found=None):
    console = Console(file=io.StringIO(), width=width)
    table.print_result(console, found or result())
    return console.file.getvalue()


def test_what_is_written_is_what_is_read(tmp_path):
    path = tmp_path / "run.json"
    record.write(path, result())
    assert record.read(path) == result()
    data = json.loads(path.read_text())
    assert data["format"] == record.FORMAT
    assert data["cases"][0]["rows"][0]["speed"]["p50"] == 0.0202
    assert data["cases"][0]["rows"][1]["speed"] is None
    assert data["ceilings"]["tflops"] == {"fp32": 0.4}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    path.write_text("mine")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(InputError, match="disk full"):
        record.write(path, result())
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        '{"format": "another"}',
        '{"format": "fastglow bench 1"}',
        json.dumps({**asdict(result()), "format": record.FORMAT, "cases": [{}]}),
        json.dumps({**asdict(result()), "format": record.FORMAT, "more": 1}),
    ],
)
def test_what_is_no_record_is_refused_by_name(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"x\.json"):
        record.read(path)
    with pytest.raises(InputError, match=r"none\.json"):
        record.read(tmp_path / "none.json")


def test_four_figures():
    assert [record.short(x) for x in (1.23456, 123456.0, 0.0)] == [1.235, 123500.0, 0.0]


def test_file_names_tell_machines_apart():
    assert record.file_name(result()) == "cpu-fp32-64ch-amd-epyc-9005-znver5-2t.json"
    assert record.file_name(result(**GPU)) == "cpu-fp32-64ch-nvidia-h100-80gb-hbm3.json"


def test_the_table_shows_every_figure_and_no_speed_for_the_refused():
    text = shown()
    first = next(line for line in text.splitlines() if "fastglow " in line and "e-07" in line)
    figures = ("4.0e-07", "10.1", "20.2", "30.3", "100", "45.4", "0.123", "50.0", "1.25", "60.0")
    for figure in (*figures, "123"):
        assert figure in first, figure
    other = next(line for line in text.splitlines() if line.strip().startswith("other"))
    assert other.split() == ["other", "fp32", "1.0e-03", *["–"] * 9, "123"]
    assert "other fp32 has no speed: error 1.0e-03 is over 5.0e-06" in text
    assert "64 channels, batch 8, 10.00 s of audio (860 frames)" in text
    assert "local changes" in text
    assert "fp32 0.4 TFLOP/s, copy 3.0 TB/s" in text


def test_the_kernels_table_shows_time_floor_and_rates():
    lines = [line.split() for line in shown().splitlines() if line.strip().startswith("gate")]
    assert lines == [["gate", "96", "2,000", "100.0", "1,000", "50.0", "0.5", "0.5"]]


def test_a_gpu_heads_the_result():
    assert "NVIDIA H100 80GB HBM3, 79 GiB, compute capability 9.0" in shown(found=result(**GPU))


def test_a_narrow_terminal_cuts_no_figure():
    text = shown(80)
    assert "…" not in "".join(line for line in text.splitlines() if "fastglow " in line)
    assert "4.0e-07" in text
    assert "p20" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.123456, "0.123"), (9.999, "10.0"), (1234.5, "1,234"), (float("inf"), "inf")],
)
def test_numbers_have_three_figures_and_no_exponent(value, text):
    assert table.number(value) == text
    assert "e" not in table.number(1.2e7)


def test_the_picture_has_a_panel_for_each_batch_and_length(tmp_path):
    plot = pytest.importorskip("fastglow.bench.plot")
    found = plot.panels(result().cases)
    assert [title for title, _, _ in found] == [
        "64 channels, batch 1",
        "64 channels, batch 8",
        "64 channels, 1 s",
        "64 channels, 10 s",
    ]
    _, label, cases = found[1]
    assert plot.lines(label, cases) == {"fastglow fp32": ([1.0, 10.0], [800.0, 8000.0])}
    _, label, cases = found[2]
    assert plot.lines(label, cases) == {"fastglow fp32": ([1.0, 8.0], [100.0, 800.0])}
    plot.plot(result(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    one = replace(result(), cases=result().cases[:1])
    assert [label for _, label, _ in plot.panels(one.cases)] == [plot.LENGTH]
    with pytest.raises(InputError, match="nothing to draw"):
        plot.plot(replace(one, cases=(replace(one.cases[0], rows=(REFUSED,)),)), tmp_path / "b.png")
