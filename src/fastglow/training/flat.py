"""A module's parameters and gradients as views of two flat tensors, so that all move at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Flat:
    """Takes the parameters of a module over.

    Args:
        module: Its parameters become views, which stay so.

    Attributes:
        weights: [size].
        gradients: [size], added to by backward passes.
        layout: The shape of each parameter by name, in their order.
    """

    def __init__(self, module: nn.Module) -> None:
        self.layout = {name: tuple(p.shape) for name, p in module.named_parameters()}
        self.weights = torch.cat([p.data.flatten() for p in module.parameters()])
        self.gradients = torch.zeros_like(self.weights)
        weights, gradients = self.views(self.weights), self.views(self.gradients)
        for name, p in module.named_parameters():
            p.data, p.grad = weights[name], gradients[name]

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """A tensor of this size as tensors by parameter name."""
        views, at = {}, 0
        for name, shape in self.layout.items():
            size = math.prod(shape)
            views[name] = flat[at : at + size].view(shape)
            at += size
        return views
