"""The published graph on other runtimes, each set as its own documentation advises for latency.

Every peer runs the graph as published (upsampled mel, 640-wide ``cond_layer``, skip
accumulator), weight norm folded and the 1x1 convolutions inverted once, as the original does.
ONNX Runtime and OpenVINO get one file with static shapes for each length, because both plan
better when they know the shapes.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastglow.checkpoint.weights import Weights
from fastglow.engines.cpu import CpuEngine
from fastglow.plan import Conditioning, Plan
from fastglow.plan.cost import Form
from fastglow.reference import WaveGlow

Float32 = NDArray[np.float32]
Run = Callable[[Float32, Float32], Float32]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One runtime, loaded.

    Attributes:
        name: Column in the table.
        form: Which arithmetic it does.
        settings: What was asked of it, in words.
        load_seconds: From weights (or an ONNX file) in memory to ready, first call excluded.
        run: mel [1, n_mel, frames] and scaled noise [1, samples] to audio [1, samples].
    """

    name: str
    form: Form
    settings: str
    load_seconds: float
    run: Run


class Published(nn.Module):
    """The published inference with W inverted once: what the original runs and exports."""

    def __init__(self, model: WaveGlow) -> None:
        """Take the reference network and invert its 1x1 convolutions in float64."""
        super().__init__()
        self.model = model
        for k, layer in enumerate(model.convinv):
            matrix = layer.matrix.detach()
            inverse = torch.linalg.inv(matrix.double()).to(matrix.dtype)
            self.register_buffer(f"inverse_{k}", inverse.unsqueeze(-1))

    def forward(self, mel: Tensor, noise: Tensor) -> Tensor:
        """Audio [B, samples] of mel [B, n_mel, frames] and scaled noise [B, samples]."""
        model, config = self.model, self.model.config
        cond, z = model.condition(mel), model.squeeze(noise)
        pending = config.n_group - config.flow_channels[-1]
        x = z[:, pending:]
        for k in reversed(range(config.n_flows)):
            kept, changed = x.chunk(2, dim=1)
            b, log_s = model.WN[k](kept, cond).chunk(2, dim=1)
            x = torch.cat((kept, (changed - b) / torch.exp(log_s)), dim=1)
            x = nn.functional.conv1d(x, getattr(self, f"inverse_{k}"))
            if config.is_early(k):
                pending -= config.n_early_size
                x = torch.cat((z[:, pending : pending + config.n_early_size], x), dim=1)
        return model.unsqueeze(x)


def published_graph(weights: Weights) -> Published:
    """The published network in float32, ready for inference."""
    return Published(WaveGlow.from_weights(weights, torch.float32)).eval()


def export(graph: Published, mel: Float32, noise: Float32, path: Path) -> None:
    """Write the published graph as ONNX with the static shapes of these inputs."""
    inputs = (torch.from_numpy(mel), torch.from_numpy(noise))
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore")  # the exporter that folds shapes best warns of its age
        torch.onnx.export(
            graph,
            inputs,
            str(path),
            input_names=["mel", "noise"],
            output_names=["audio"],
            opset_version=17,
            dynamo=False,
            do_constant_folding=True,
        )


def fastglow(weights: Weights, threads: int, conditioning: Conditioning = "phases") -> Candidate:
    """Our engine; "phases" is the form that it is built for."""
    begin = time.perf_counter()
    engine = CpuEngine(Plan(weights, conditioning), precision="fp32", threads=threads)
    spent = time.perf_counter() - begin
    form: Form = "rewritten" if conditioning == "phases" else "rewritten, published conditioning"

    def run(mel: Float32, noise: Float32) -> Float32:
        return engine.infer(mel, noise, [mel.shape[2]])

    return Candidate("fastglow", form, engine.description, spent, run)


def pytorch(graph: Published, threads: int, load_seconds: float = 0.0) -> Candidate:
    """PyTorch, eager, in inference mode."""
    torch.set_num_threads(threads)

    def run(mel: Float32, noise: Float32) -> Float32:
        with torch.inference_mode():
            return graph(torch.from_numpy(mel), torch.from_numpy(noise)).numpy()

    settings = f"eager, inference_mode, {threads} threads"
    return Candidate("PyTorch", "published", settings, load_seconds, run)


def onnxruntime(path: Path, threads: int) -> Candidate:
    """ONNX Runtime's CPU provider with every graph optimisation."""
    import onnxruntime as ort

    begin = time.perf_counter()
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    spent = time.perf_counter() - begin

    def run(mel: Float32, noise: Float32) -> Float32:
        (audio,) = session.run(["audio"], {"mel": mel, "noise": noise})
        return audio

    settings = f"CPUExecutionProvider, all optimisations, static shapes, {threads} threads"
    return Candidate("ONNX Runtime", "published", settings, spent, run)


def openvino(path: Path, threads: int) -> Candidate:
    """OpenVINO's CPU plugin in true float32, tuned for latency."""
    import openvino as ov

    begin = time.perf_counter()
    core = ov.Core()
    properties = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(threads),
    }
    request = core.compile_model(str(path), "CPU", properties).create_infer_request()
    spent = time.perf_counter() - begin

    def run(mel: Float32, noise: Float32) -> Float32:
        return request.infer({"mel": mel, "noise": noise})["audio"].copy()

    settings = f"CPU, f32, LATENCY, static shapes, {threads} threads"
    return Candidate("OpenVINO", "published", settings, spent, run)


def load_peers(
    weights: Weights, mel: Float32, noise: Float32, threads: int, names: set[str]
) -> list[Candidate]:
    """Every peer asked for, at the shapes of these inputs."""
    if not names:
        return []
    begin = time.perf_counter()
    graph = published_graph(weights)
    spent = time.perf_counter() - begin
    peers = [pytorch(graph, threads, spent)] if "pytorch" in names else []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "published.onnx"
        if names & {"onnxruntime", "openvino"}:
            export(graph, mel, noise, path)
        if "onnxruntime" in names:
            peers.append(onnxruntime(path, threads))
        if "openvino" in names:
            peers.append(openvino(path, threads))
    return peers
