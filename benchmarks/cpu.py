"""The CPU engine against PyTorch, ONNX Runtime and OpenVINO on the published graph, fp32.

First the gate: each candidate's audio is compared with the float64 reference, and no speed is
printed while ours is wrong. Then interleaved rounds, A B C D, A B C D, …
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import machine, report
from benchmarks.model import published, random_input, random_weights, relative_error
from benchmarks.peers import Candidate, fastglow, load_peers
from benchmarks.rounds import interleave
from fastglow.checkpoint.weights import Weights
from fastglow.config import WaveGlowConfig
from fastglow.engines.cpu.threads import available_threads
from fastglow.reference import WaveGlow

RESULTS = machine.ROOT / "benchmarks" / "results"
TOLERANCE = 5e-6  # ours
PEER_TOLERANCE = 1e-4  # a peer beyond it did not run in float32: it is left out of the table
PEERS = ("pytorch", "onnxruntime", "openvino")
MODULES = {"pytorch": "torch", "onnxruntime": "onnxruntime", "openvino": "openvino"}

EPILOG = """\
examples:
  python -m benchmarks.cpu                            64 channels, 1 and 10 seconds, all cores
  python -m benchmarks.cpu --channels 256 --seconds 5
  python -m benchmarks.cpu --threads 1 --runs 20
  python -m benchmarks.cpu --peers openvino --no-json a quick look at one peer

columns:
  RTF          seconds of work a second of audio; below 1 is faster than real time
  × real time  its inverse
  × best peer  the fastest peer's seconds divided by this row's, median over the rounds
  GFLOP/s      of the arithmetic that the row really does: the published graph costs 1.5 to
               1.7 times the operations of the rewritten one, so compare seconds, not GFLOP/s
  load s       from weights (ONNX file) in memory to ready; the first call is not in it

Weights are random at the published shapes (seeded), so no checkpoint is needed. Quote p50 from
a quiet machine; p20 and p80 far apart mean that it was not.
"""


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--channels", type=int, default=64, metavar="C", help="WN channels (default: 64)")
    add(
        "--seconds",
        type=float,
        nargs="+",
        default=[1.0, 10.0],
        metavar="S",
        help="lengths of audio (default: 1 10)",
    )
    add("--threads", type=int, default=available_threads(), help="default: every core allowed")
    add("--runs", type=int, default=10, help="rounds that count, after one warm-up (default: 10)")
    add("--peers", nargs="*", choices=PEERS, default=PEERS, help="default: all that are installed")
    add("--conditioning", choices=("phases", "published"), default="phases", help="of our engine")
    add("--seed", type=int, default=0, help="of weights, mel and noise (default: 0)")
    add("--json", type=Path, metavar="PATH", help="default: benchmarks/results/cpu-fp32-….json")
    add("--no-json", action="store_true", help="print only")
    found = parser.parse_args(argv)
    for name, low in (("channels", 1), ("threads", 1), ("runs", 1)):
        if getattr(found, name) < low:
            parser.error(f"--{name} must be at least {low}")
    if min(found.seconds) <= 0:
        parser.error("--seconds must be above 0")
    return found


def installed(names: list[str], console: Console) -> set[str]:
    """The peers that can be imported; says which cannot."""
    ready = {name for name in names if importlib.util.find_spec(MODULES[name])}
    for name in sorted(set(names) - ready):
        console.print(f"{name} is not installed, left out: pip install 'fastglow[bench]'")
    if ready & {"onnxruntime", "openvino"} and not importlib.util.find_spec("onnx"):
        console.print("onnx is not installed, so no ONNX peer: pip install 'fastglow[bench]'")
        ready -= {"onnxruntime", "openvino"}
    return ready


def expected_audio(
    weights: Weights, mel: NDArray[np.float32], noise: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The reference in float64 on the same float32 inputs."""
    model = WaveGlow.from_weights(weights, torch.float64)
    with torch.inference_mode():
        return model.infer(torch.from_numpy(mel).double(), torch.from_numpy(noise).double()).numpy()


def gate(
    candidates: list[Candidate],
    inputs: tuple[NDArray[np.float32], NDArray[np.float32]],
    expected: NDArray[np.float64],
    console: Console,
) -> tuple[dict[str, float], list[Candidate]]:
    """Every candidate's error, and the candidates that may be timed.

    Raises:
        SystemExit: Our audio is wrong.
    """
    errors = {c.name: relative_error(c.run(*inputs), expected) for c in candidates}
    report.print_errors(console, errors, TOLERANCE)
    ours, *peers = candidates
    if errors[ours.name] > TOLERANCE:
        raise SystemExit(
            f"gate: {ours.name} differs from float64 by {errors[ours.name]:.1e}, above "
            f"{TOLERANCE:.0e}; speeds are not measured while the audio is wrong"
        )
    sound = [c for c in peers if errors[c.name] <= PEER_TOLERANCE]
    for c in peers:
        if c not in sound:
            console.print(f"{c.name} did not run in float32, left out of the table")
    return errors, [ours, *sound]


def measure(
    config: WaveGlowConfig,
    seconds: float,
    ours: Candidate,
    weights: Weights,
    options: argparse.Namespace,
    console: Console,
) -> dict[str, Any]:
    """One length: load the peers at its shapes, gate, time, print; returns it for JSON."""
    frames = max(1, round(seconds * config.sampling_rate / config.hop_length))
    mel, noise = random_input(config, frames, options.seed + 1)
    with Console(stderr=True).status("exporting the published graph") as status:
        peers = load_peers(weights, mel, noise, options.threads, options.peers)
        status.update("reference in float64")
        expected = expected_audio(weights, mel, noise)
        errors, sound = gate([ours, *peers], (mel, noise), expected, console)
        timings = interleave(
            {c.name: functools.partial(c.run, mel, noise) for c in sound},
            options.runs,
            tick=lambda done: status.update(f"round {done} of {options.runs + 1}"),
        )
    found = report.rows(config, frames, sound, errors, timings)
    length = config.samples(frames) / config.sampling_rate
    title = f"{config.wn.n_channels} channels, {length:.2f} s of audio ({frames} frames)"
    report.print_table(console, title, found)
    return {"seconds": round(length, 4), "frames": frames, "candidates": report.as_json(found)}


def write(path: Path, result: dict[str, Any], console: Console) -> None:
    """Write the JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    os.replace(partial, path)
    console.print(f"written   {path.name}")


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    options = arguments(argv)
    console = Console(
        width=110 if not sys.stdout.isatty() else None, highlight=False, soft_wrap=True
    )
    options.peers = installed(list(options.peers), console)
    about = machine.describe(options.threads)
    report.print_header(console, about)
    config = published(options.channels)
    weights = random_weights(config, options.seed)
    ours = fastglow(weights, options.threads, options.conditioning)
    lengths = [measure(config, s, ours, weights, options, console) for s in options.seconds]
    result = {
        "benchmark": "cpu-fp32",
        "channels": options.channels,
        "runs": options.runs,
        "weights": f"random, published shapes, seed {options.seed}",
        **about,
        "lengths": lengths,
    }
    name = f"cpu-fp32-{options.channels}ch-{machine.slug(options.threads)}.json"
    if not options.no_json:
        write(options.json or RESULTS / name, result, console)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
