"""A plan as an ONNX graph, for ONNX Runtime, OpenVINO, C++ and mobile programs.

The graph reads a mel and noise of any batch and length, knows neither sigma nor seeds, and makes
every row's samples from that row alone. Products are the plan's: the skip path and ``start`` are
composed, and with phase matrices the upsampling too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastglow.atomic import replacing
from fastglow.errors import InputError
from fastglow.plan import FlowPlan, Plan

OPSET = 17
MOST = 2_000_000_000  # bytes of one protobuf file
Float64 = NDArray[np.float64]


def export_onnx(plan: Plan, path: Path) -> None:
    """Write the plan's network in float32.

    Inputs are ``mel`` [batch, n_mel, frames], natural log, and ``noise`` [batch, samples], already
    scaled by sigma, with samples = frames * hop (a ragged last group left out); the output is
    ``audio`` [batch, samples]. Rows of a padded batch hear the padding at their ends.

    Args:
        plan: What to write.
        path: A .onnx file; replaced whole or not at all.

    Raises:
        InputError: The package ``onnx`` is missing, or the graph exceeds the format's 2 GB.
    """
    try:
        import onnx
    except ImportError:
        raise InputError(
            "export onnx needs the package onnx: pip install 'fastglow[export]'"
        ) from None
    model = _Graph(onnx).build(plan)
    onnx.checker.check_model(model)
    with replacing(path) as (part,):
        part.write_bytes(model.SerializeToString())


@dataclass
class _Graph:
    """Nodes and weights so far; every method adds some and gives the name of its result."""

    onnx: Any
    nodes: list[Any] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)
    held: int = 0  # bytes of weights

    def build(self, plan: Plan) -> Any:
        """The whole model, with what a program must know about it as metadata."""
        config, helper = plan.config, self.onnx.helper
        group, pending = config.n_group, config.n_group - config.flow_channels[-1]
        steps = self.op("Reshape", "noise", self.integers(0, -1, group))
        z = self.op("Transpose", steps, perm=[0, 2, 1])
        inputs = self.upsampled(plan) if plan.conditioning == "published" else self.windows(plan)
        x = self.rows(z, pending, group) if pending else z
        for k in reversed(range(config.n_flows)):
            flow = plan.flow(k)
            early = config.n_group - flow.channels
            if early < pending:
                x, pending = self.op("Concat", self.rows(z, early, pending), x, axis=1), early
            x = self.flow(flow, x, inputs, plan)
        turned = self.op("Transpose", x, perm=[0, 2, 1])
        self.op("Reshape", turned, self.integers(0, -1), out="audio")
        make, single = helper.make_tensor_value_info, self.onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            self.nodes,
            "fastglow",
            [
                make("mel", single, ["batch", config.n_mel_channels, "frames"]),
                make("noise", single, ["batch", "samples"]),
            ],
            [make("audio", single, ["batch", "samples"])],
            self.tensors,
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], producer_name="fastglow")
        model.ir_version = 8  # runtimes of 2022 read it
        facts = {"sampling_rate": config.sampling_rate, "hop_length": config.hop_length}
        helper.set_model_props(model, {name: str(value) for name, value in facts.items()})
        return model

    def flow(self, flow: FlowPlan, x: str, inputs: str, plan: Plan) -> str:
        """One inverse flow on [batch, n, steps]."""
        half, layers = flow.channels // 2, len(flow.gate)
        first, second = self.rows(x, 0, half), self.rows(x, half, flow.channels)
        given, changed = (second, first) if flow.swapped else (first, second)
        stream = self.pointwise(given, flow.start, flow.start_bias)
        taps = self.op("Concat", given, self.ones(given), axis=1)
        out = ""
        for i, kernel in enumerate(flow.gate):
            gate = self.dilated(taps, kernel, flow.gate_bias[i], 2**i)
            gate = self.op("Add", gate, self.conditioned(inputs, flow.conditioning[i], plan))
            acts = self.gated(gate, len(kernel) // 2)
            share = self.pointwise(acts, flow.output[i], None if i else flow.output_bias)
            out = self.op("Add", out, share) if out else share
            if i < layers - 1:
                kept = self.pointwise(acts, flow.residual[i], flow.residual_bias[i])
                taps = stream = self.op("Add", stream, kept)
        shift, scale = self.rows(out, 0, half), self.rows(out, half, flow.channels)
        factor = self.op("Exp", self.op("Neg", scale))
        changed = self.op("Mul", self.op("Sub", changed, shift), factor)
        halves = (changed, given) if flow.swapped else (given, changed)
        return self.pointwise(self.op("Concat", *halves, axis=1), flow.inverse, None)

    def gated(self, gate: str, channels: int) -> str:
        """Tanh of the first half of the rows times sigmoid of the second."""
        upper = self.op("Tanh", self.rows(gate, 0, channels))
        lower = self.op("Sigmoid", self.rows(gate, channels, 2 * channels))
        return self.op("Mul", upper, lower)

    def upsampled(self, plan: Plan) -> str:
        """[batch, M*G, steps] as ``cond_layer`` reads it."""
        config = plan.config
        bands, hop, kernel = config.n_mel_channels, config.hop_length, config.upsample_kernel
        weight = self.tensor(plan.weights["upsample.weight"])
        extra = max(0, hop - kernel)  # samples after the last kernel that nothing reaches
        wave = self.op(
            "ConvTranspose", "mel", weight, strides=[hop], output_padding=[min(extra, hop - 1)]
        )
        shape = self.op("Shape", "noise")
        samples = self.op("Slice", shape, self.integers(1), self.integers(2))
        kept = self.op("Slice", wave, self.integers(0), samples, self.integers(2))
        groups = self.op("Reshape", kept, self.integers(0, bands, -1, config.n_group))
        turned = self.op("Transpose", groups, perm=[0, 1, 3, 2])
        return self.op("Reshape", turned, self.integers(0, bands * config.n_group, -1))

    def windows(self, plan: Plan) -> str:
        """The mel after as many frames of zeros as a window reaches back."""
        return self.op("Pad", "mel", self.integers(0, 0, plan.config.mel_taps - 1, 0, 0, 0))

    def conditioned(self, inputs: str, matrix: Float64, plan: Plan) -> str:
        """[batch, 2C, steps] of one layer."""
        if matrix.ndim == 2:
            return self.pointwise(inputs, matrix, None)
        config, (rows, phases, _) = plan.config, matrix.shape
        taps = matrix.reshape(rows, phases, config.mel_taps, config.n_mel_channels)
        kernel = taps[:, :, ::-1].transpose(1, 0, 3, 2).reshape(phases * rows, -1, config.mel_taps)
        each = self.op("Conv", inputs, self.tensor(kernel))
        split = self.op("Reshape", each, self.integers(0, phases, rows, -1))
        turned = self.op("Transpose", split, perm=[0, 2, 3, 1])
        return self.op("Reshape", turned, self.integers(0, rows, -1))

    def dilated(self, x: str, kernel: Float64, bias: Float64, dilation: int) -> str:
        """A zero-padded dilated convolution; kernel [out, taps, in]."""
        reach = kernel.shape[1] // 2 * dilation
        weight = self.tensor(kernel.transpose(0, 2, 1))
        return self.op(
            "Conv", x, weight, self.tensor(bias), dilations=[dilation], pads=[reach, reach]
        )

    def pointwise(self, x: str, matrix: Float64, bias: Float64 | None) -> str:
        """Matrix [out, in] times each step."""
        weights = [self.tensor(matrix[:, :, None])]
        weights += [] if bias is None else [self.tensor(bias)]
        return self.op("Conv", x, *weights)

    def rows(self, x: str, first: int, last: int) -> str:
        """Channels ``first`` to ``last - 1``."""
        return self.op("Slice", x, self.integers(first), self.integers(last), self.integers(1))

    def ones(self, like: str) -> str:
        """A channel of ones as long as ``like``."""
        one = self.onnx.helper.make_tensor("one", self.onnx.TensorProto.FLOAT, [1], [1.0])
        return self.op("ConstantOfShape", self.op("Shape", self.rows(like, 0, 1)), value=one)

    def integers(self, *values: int) -> str:
        """A constant shape, index or list of axes."""
        return self.tensor(np.array(values, dtype=np.int64))

    def tensor(self, array: NDArray[Any]) -> str:
        """A weight, in float32 unless it is integers."""
        kind = array.dtype if array.dtype == np.int64 else np.dtype(np.float32)
        stored, name = np.ascontiguousarray(array, dtype=kind), f"w{len(self.tensors)}"
        self.held += stored.nbytes
        if self.held > MOST:
            raise InputError(
                "the graph would exceed the 2 GB that an ONNX file may have; "
                "export with --conditioning published"
            )
        self.tensors.append(self.onnx.numpy_helper.from_array(stored, name))
        return name

    def op(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """A node with one output."""
        name = out or f"v{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        return name
