"""The published graph on other CPU runtimes, each set as its own documentation advises.

Weight norm is folded and the 1x1 convolutions are inverted once, as the original does. ONNX
Runtime and OpenVINO get one file with static shapes for each input, because both plan better
when they know the shapes.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from fastglow.bench.candidates import Candidate, Shape
from fastglow.bench.model import Float32
from fastglow.bench.peers import Peer
from fastglow.bench.published import placed


def pytorch(precision: str, shape: Shape) -> Candidate:
    """PyTorch, eager, in inference mode; bf16 convolutions around a float32 coupling."""
    begin = time.perf_counter()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    graph = placed(shape.graph, "cpu", dtype)
    mel, noise = torch.from_numpy(shape.inputs.mel), torch.from_numpy(shape.inputs.noise)
    spent = time.perf_counter() - begin

    def run() -> torch.Tensor:
        with torch.inference_mode():
            audio: torch.Tensor = graph(mel, noise)
            return audio

    settings = f"eager, inference_mode, {shape.threads} threads"
    return Candidate("PyTorch", precision, "published", settings, spent, run)


def onnxruntime(precision: str, shape: Shape) -> Candidate:
    """ONNX Runtime's CPU provider with every graph optimisation."""
    import onnxruntime as ort

    path = str(shape.onnx)
    begin = time.perf_counter()
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = shape.threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # In a thread of its own: the last option makes its thread flush subnormals to zero ever after.
    thread = ThreadPoolExecutor(1)
    providers = ["CPUExecutionProvider"]
    session = thread.submit(ort.InferenceSession, path, options, providers=providers).result()
    spent = time.perf_counter() - begin
    feed = {"mel": shape.inputs.mel, "noise": shape.inputs.noise}

    def run() -> Float32:
        audio: Float32 = thread.submit(session.run, ["audio"], feed).result()[0]
        return audio

    settings = f"CPUExecutionProvider, all optimisations, static shapes, {shape.threads} threads"
    return Candidate("ONNX Runtime", precision, "published", settings, spent, run)


def openvino(precision: str, shape: Shape) -> Candidate:
    """OpenVINO's CPU plugin in the precision asked for, tuned for latency."""
    import openvino as ov

    path = str(shape.onnx)
    begin = time.perf_counter()
    hint = "bf16" if precision == "bf16" else "f32"
    properties = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(shape.threads),
    }
    request = ov.Core().compile_model(path, "CPU", properties).create_infer_request()
    spent = time.perf_counter() - begin
    feed = {"mel": shape.inputs.mel, "noise": shape.inputs.noise}

    def run() -> Float32:
        audio: Float32 = request.infer(feed)["audio"].copy()
        return audio

    settings = f"CPU, {hint}, LATENCY, static shapes, {shape.threads} threads"
    return Candidate("OpenVINO", precision, "published", settings, spent, run)


PEERS = (
    Peer("pytorch", "fp32", (), partial(pytorch, "fp32")),
    Peer("pytorch-bf16", "bf16", (), partial(pytorch, "bf16")),
    Peer("onnxruntime", "fp32", ("onnx", "onnxruntime"), partial(onnxruntime, "fp32")),
    Peer("openvino", "fp32", ("onnx", "openvino"), partial(openvino, "fp32")),
    Peer("openvino-bf16", "bf16", ("onnx", "openvino"), partial(openvino, "bf16")),
)
