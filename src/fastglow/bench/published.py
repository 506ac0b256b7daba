"""The published network as its users run it: what every peer executes."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from fastglow.bench.model import Inputs
from fastglow.checkpoint.weights import Weights
from fastglow.reference import WaveGlow


class Published(nn.Module):
    """The published inference with W inverted once: what the original runs and exports.

    The 1x1 convolutions and the coupling stay in float32 whatever the network's precision.

    Args:
        model: The reference network in float32.
    """

    def __init__(self, model: WaveGlow) -> None:
        super().__init__()
        self.model = model
        self.products = torch.float32
        for k, layer in enumerate(model.convinv):
            matrix = layer.matrix.detach()  # type: ignore[operator]
            inverse = torch.linalg.inv(matrix.double()).to(matrix.dtype)
            self.register_buffer(f"inverse_{k}", inverse.unsqueeze(-1))

    def forward(self, mel: Tensor, noise: Tensor) -> Tensor:
        """Audio [B, samples] of mel [B, n_mel, frames] and scaled noise [B, samples]."""
        model, config = self.model, self.model.config
        cond, z = model.condition(_cast(mel, self.products)), model.squeeze(noise)
        pending = config.n_group - config.flow_channels[-1]
        x = z[:, pending:]
        for k in reversed(range(config.n_flows)):
            lower, upper = x.chunk(2, dim=1)
            kept, changed = (upper, lower) if model.swaps(k) else (lower, upper)
            out = _cast(model.WN[k](_cast(kept, self.products), cond), x.dtype)
            b, log_s = out.chunk(2, dim=1)
            changed = (changed - b) / torch.exp(log_s)
            x = torch.cat((changed, kept) if model.swaps(k) else (kept, changed), dim=1)
            x = nn.functional.conv1d(x, getattr(self, f"inverse_{k}"))
            if config.is_early(k):
                pending -= config.n_early_size
                x = torch.cat((z[:, pending : pending + config.n_early_size], x), dim=1)
        return model.unsqueeze(x)


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` in a precision; an export sees no operation where there is none."""
    return x if x.dtype == dtype else x.to(dtype)


def published_graph(weights: Weights) -> Published:
    """The published network in float32 on the CPU, ready for inference."""
    return Published(WaveGlow.from_weights(weights, torch.float32)).eval()


def placed(graph: Published, device: str, products: torch.dtype) -> Published:
    """A copy on a device, with WN and the upsampling in another precision."""
    copied = copy.deepcopy(graph).to(device)
    copied.model.to(products)
    copied.products = products
    return copied


def export(graph: Published, inputs: Inputs, path: Path) -> None:
    """Write the published graph as ONNX with the static shapes of these inputs."""
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore")  # the exporter that folds shapes best warns of its age
        torch.onnx.export(
            graph,
            (torch.from_numpy(inputs.mel), torch.from_numpy(inputs.noise)),
            str(path),
            input_names=["mel", "noise"],
            output_names=["audio"],
            opset_version=17,
            dynamo=False,
            do_constant_folding=True,
        )
