"""The figures of a run as data: what tables, plots and JSON files are made from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fastglow.atomic import write_whole
from fastglow.errors import InputError

FORMAT = "fastglow bench 1"
OURS = "fastglow"


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed of a candidate whose audio passed the gate.

    Attributes:
        calls: Timed calls.
        p20: Seconds of one call; p50 and p80 likewise.
        khz: Thousand audio samples a second, all rows of the batch together.
        times_real_time: Seconds of audio a second of work, likewise.
        tflops: TFLOP/s of the arithmetic that this candidate's form of the network does, at p50.
        of_ceiling: That as a share of a large matrix product's in the same run.
        times_fastest_peer: Above 1 is faster than the fastest peer that is no less precise.
        end_to_end: Seconds (p50) of ``Vocoder.synthesize``, arrays in and out.
    """

    calls: int
    p20: float
    p50: float
    p80: float
    khz: float
    times_real_time: float
    tflops: float
    of_ceiling: float | None
    times_fastest_peer: float | None
    end_to_end: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate on one shape of inputs.

    Attributes:
        name: The program.
        precision: Of its products.
        form: Which arithmetic it does.
        settings: How it was set.
        load_seconds: From weights or file to ready.
        first_seconds: Of its first call, compilation and capture included.
        memory_bytes: The most that it used, its weights included.
        error: Largest difference from float64 over the peak; None if it gave no audio.
        bar: The largest that may pass.
        refused: Why it has no speed.
        speed: None if refused.
    """

    name: str
    precision: str
    form: str
    settings: str
    load_seconds: float
    first_seconds: float | None
    memory_bytes: int | None
    error: float | None
    bar: float
    refused: str | None
    speed: Speed | None


@dataclass(frozen=True, slots=True)
class KernelRow:
    """All launches of one kernel in one inference.

    Attributes:
        precision: Of fastglow's products.
        name: The kernel.
        launches: How many.
        seconds: Of all of them together.
        flop: Likewise.
        bytes: Read and written, likewise.
        floor_seconds: What the ceiling and the bandwidth of the same run allow.
    """

    precision: str
    name: str
    launches: int
    seconds: float
    flop: float
    bytes: float
    floor_seconds: float


@dataclass(frozen=True, slots=True)
class Case:
    """One shape: a model, a batch, a length.

    Attributes:
        model: What it is, in words.
        channels: Of WN.
        batch: Rows.
        frames: Mel frames of each row.
        seconds: Of audio in each row.
        rows: The candidates, fastglow first.
        kernels: fastglow's kernels, if asked for.
    """

    model: str
    channels: int
    batch: int
    frames: int
    seconds: float
    rows: tuple[Row, ...]
    kernels: tuple[KernelRow, ...] = ()

    @property
    def title(self) -> str:
        """One line."""
        return (
            f"{self.model}, {self.channels} channels, batch {self.batch}, "
            f"{self.seconds:.2f} s of audio ({self.frames} frames)"
        )


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the device reached in this run.

    Attributes:
        tflops: TFLOP/s of a large matrix product, by precision.
        bandwidth: TB/s of a large copy; None if not measured.
    """

    tflops: Mapping[str, float]
    bandwidth: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A whole run.

    Attributes:
        date: UTC, ISO 8601.
        device: "cpu" or "cuda".
        settings: What was asked for.
        about: Machine, versions, commit, environment.
        ceilings: Of the device.
        cases: In the order of the sweep.
    """

    date: str
    device: str
    settings: Mapping[str, Any]
    about: Mapping[str, Any]
    ceilings: Ceilings
    cases: tuple[Case, ...] = ()

    def adding(self, case: Case) -> Result:
        """With one more case."""
        return replace(self, cases=(*self.cases, case))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """The inverse of :meth:`to_dict`.

        Raises:
            InputError: It is no such record.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise InputError(f"no record of a benchmark; expected one with format {FORMAT!r}")
        try:
            fields = {key: value for key, value in data.items() if key != "format"}
            fields["ceilings"] = Ceilings(**fields["ceilings"])
            fields["cases"] = tuple(_case(case) for case in fields["cases"])
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise InputError(f"a damaged record of a benchmark: {error}") from None


def _case(data: dict[str, Any]) -> Case:
    rows = tuple(_row(row) for row in data["rows"])
    kernels = tuple(KernelRow(**kernel) for kernel in data["kernels"])
    return Case(**{**data, "rows": rows, "kernels": kernels})


def _row(data: dict[str, Any]) -> Row:
    speed = data["speed"]
    return Row(**{**data, "speed": None if speed is None else Speed(**speed)})


def write(path: Path, result: Result) -> None:
    """Write a result as JSON, whole or not at all.

    Raises:
        InputError: It cannot be written.
    """
    text = json.dumps(result.to_dict(), indent=1, ensure_ascii=False) + "\n"
    write_whole(path, [text.encode()])


def read(path: Path) -> Result:
    """Read what :func:`write` wrote.

    Raises:
        InputError: The file cannot be read or is no such record.
    """
    try:
        return Result.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def short(value: float) -> float:
    """Four significant figures, as measured times deserve."""
    return float(f"{value:.4g}")


def file_name(result: Result) -> str:
    """A name that tells runs apart, for example "cpu-fp32-64ch-amd-epyc-znver5-2t.json"."""
    machine, settings = result.about["machine"], result.settings
    words = machine.get("gpu")
    if not words:
        name = re.sub(r"\(.*?\)|\bCPU\b.*|\b\d+-Core\b.*|@.*", "", machine["processor"])
        words = f"{name} {machine['target']} {machine['threads_used']}t"
    sizes = [f"{channels}ch" for channels in dict.fromkeys(case.channels for case in result.cases)]
    text = " ".join([result.device, *settings["precisions"], *sizes, words])
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") + ".json"
