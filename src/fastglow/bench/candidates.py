"""What is timed: fastglow and its peers, loaded, with their inputs in place."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastglow.bench.model import Float32, Inputs, Model
from fastglow.bench.published import Published, export
from fastglow.bench.record import OURS
from fastglow.plan.cost import Form
from fastglow.vocoder import Vocoder


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to compute the audio.

    Attributes:
        name: The program.
        precision: Of its products.
        form: Which arithmetic it does.
        settings: What was asked of it, in words.
        load_seconds: From weights (or an ONNX file) in memory to ready, first call excluded.
        call: One inference on inputs already in place; its audio stays where it is made.
        end_to_end: The same as a user calls it, arrays in and out; None for peers.
    """

    name: str
    precision: str
    form: Form
    settings: str
    load_seconds: float
    call: Callable[[], object]
    end_to_end: Callable[[], object] | None = None

    def audio(self) -> Float32:
        """One inference's audio [B, samples] on the host, a copy."""
        found: Any = self.call()
        if isinstance(found, torch.Tensor):
            found = found.float().cpu().numpy()
        return np.array(found, np.float32)


@dataclass(frozen=True)
class Shape:
    """What a peer is built from, at one shape of the inputs.

    Attributes:
        graph: The published network in float32 on the CPU.
        inputs: What it will be timed on.
        threads: CPU threads that it may use.
        folder: For files that live as long as the shape.
    """

    graph: Published
    inputs: Inputs
    threads: int
    folder: Path

    @cached_property
    def onnx(self) -> Path:
        """The published graph as an ONNX file with static shapes, written when first needed."""
        path = self.folder / "published.onnx"
        export(self.graph, self.inputs, path)
        return path


class Ours:
    """fastglow in one precision, loaded once for all shapes.

    Attributes:
        vocoder: The loaded model.
        load_seconds: What that took.
    """

    def __init__(
        self, model: Model, device: str, precision: str, conditioning: str, threads: int | None
    ) -> None:
        """Load the model as a user does.

        Raises:
            FastglowError: The model cannot be read, or the engine cannot run here.
        """
        begin = time.perf_counter()
        self.vocoder = Vocoder.load(
            model.source,
            device=device,
            precision=precision,  # type: ignore[arg-type]  # checked by load
            conditioning=conditioning,  # type: ignore[arg-type]
            threads=threads,
            **model.options,
        )
        self.load_seconds = time.perf_counter() - begin

    def at(self, inputs: Inputs) -> Candidate:
        """The candidate on these inputs."""
        engine = self.vocoder.engine
        phases = engine.conditioning == "phases"
        return Candidate(
            name=OURS,
            precision=engine.precision,
            form="rewritten" if phases else "rewritten, published conditioning",
            settings=engine.description,
            load_seconds=self.load_seconds,
            call=self._call(inputs),
            end_to_end=lambda: self.vocoder.synthesize(inputs.mel, seed=0),
        )

    def _call(self, inputs: Inputs) -> Callable[[], object]:
        """One inference: on a GPU from tensors that lie there, to a tensor that stays there."""
        engine: Any = self.vocoder.engine
        lengths = [inputs.frames] * inputs.batch
        if engine.device == "cpu":
            return lambda: engine.infer(inputs.mel, inputs.noise, lengths)
        mel, noise = (torch.from_numpy(a).to(engine.device) for a in (inputs.mel, inputs.noise))
        return lambda: engine.infer_device(mel, noise, lengths)
