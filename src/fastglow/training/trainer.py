"""The step of training, with what carries over from step to step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from fastglow.atomic import replacing
from fastglow.errors import InputError
from fastglow.training.data import Segments
from fastglow.training.likelihood import Network, objective_of
from fastglow.training.muon import Muon
from fastglow.training.objective import TrainConfig

PROJECT_EVERY = 100
MATRICES = ("in_weight", "cond_weight", "res_weight", "skip_weight")


class Trainer:
    """Training that can go on from a file: ``step`` until done, ``save`` now and then.

    A step's segments and noise depend on (seed, step, rank) alone. On CUDA the forward and
    backward passes are one graph and the update another, with the sum over devices between.

    Args:
        network: Trained in place; its kind says by which objective.
        segments: Where to draw from; its margin must be the objective's.
        config: How.
        rank: Of this process among ``world``.
        world: Processes, each with its device, through ``torch.distributed``.
        capture: Whether to use CUDA graphs.

    Attributes:
        done: Steps done.
        skipped: [2], steps that were not finite: all of them, and those since the last good one.
    """

    def __init__(
        self, network: Network, segments: Segments, config: TrainConfig, rank: int = 0,
        world: int = 1, capture: bool = True,
    ) -> None:  # fmt: skip
        self.network, self.segments, self.config = network, segments, config
        self.rank, self.world = rank, world
        self.device = next(network.parameters()).device
        self.objective = objective_of(network, config).to(self.device)
        margin = self.objective.analysis.margin
        if segments.length != config.segment + 2 * margin:
            raise InputError(
                f"segments of {segments.length} samples; expected {config.segment} and a margin "
                f"of {margin} on both sides"
            )
        self.done = 0
        self._flatten()
        self.learning_rate = torch.zeros((), device=self.device)
        self.optimizers = self._optimizers()
        self.decay = torch.zeros((), device=self.device)
        self.running_norm = torch.zeros((), device=self.device)
        self.skipped = torch.zeros(2, dtype=torch.int64, device=self.device)
        self.generator = torch.Generator(self.device)
        self.terms: dict[str, Tensor] = {}
        size = config.batch
        self.audio = torch.zeros(size, segments.length, device=self.device)
        self.noise = torch.zeros(size, config.segment, device=self.device)
        self.sigma = torch.zeros(size, 1, device=self.device)
        self._forward: Callable[[], None] = self._compute
        self._apply: Callable[[], None] = self._update
        if self.device.type == "cuda" and capture:
            self._capture()

    def _flatten(self) -> None:
        """Make gradients, parameters and their average views of three flat tensors."""
        size = sum(p.numel() for p in self.network.parameters())
        self.weights = torch.empty(size, device=self.device)
        self.gradients = torch.zeros(size, device=self.device)
        weights, gradients = self._views(self.weights), self._views(self.gradients)
        for name, p in self.network.named_parameters():
            weights[name].copy_(p.data)
            p.data, p.grad = weights[name], gradients[name]
        self.average = self.weights.clone()

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        config, on_gpu = self.config, self.device.type == "cuda"
        named = list(self.network.named_parameters())
        matrices = [p for n, p in named if config.muon and n.endswith(MATRICES)]
        taken = {id(p) for p in matrices}
        decayed = [p for n, p in named if _decays(n) and id(p) not in taken]
        others = [p for n, p in named if not _decays(n)]
        adam = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=self.learning_rate, betas=config.betas, eps=1e-9, fused=on_gpu, capturable=on_gpu,
        )  # fmt: skip
        if not matrices:
            return [adam]
        return [adam, Muon(matrices, self.learning_rate, weight_decay=config.weight_decay)]

    def _compute(self) -> None:
        self.gradients.zero_()
        terms = self.objective(self.audio, self.noise, self.sigma)
        terms["loss"].backward()
        self.terms = {n: t.detach() for n, t in terms.items()}

    def _update(self) -> None:
        """Clip to twice the usual norm, skip a step that is not finite, update, average."""
        norm = self.gradients.norm() / self.world
        fine = torch.isfinite(norm)
        usual = torch.where(self.running_norm > 0, self.running_norm, norm)
        scale = torch.clamp(2 * usual / (norm + 1e-12), max=1.0) / self.world
        torch.nan_to_num_(self.gradients, nan=0.0, posinf=0.0, neginf=0.0)
        self.gradients.mul_(torch.where(fine, scale, 0.0))
        moved = torch.lerp(usual, torch.minimum(norm, 2 * usual), 0.02)
        self.running_norm.copy_(torch.where(fine, moved, self.running_norm))
        self.terms["norm"] = norm
        self.learning_rate.mul_(fine)  # momentum and decay would move the weights all the same
        self.skipped.add_(~fine).mul_(torch.stack([torch.ones_like(fine), ~fine]))
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.lerp_(self.weights, 1 - self.decay)

    def _capture(self) -> None:
        before = (self.weights.clone(), self.average.clone())
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._draw(0)
                self._compute()
                self._update()
        torch.cuda.current_stream().wait_stream(stream)
        forward, update = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(forward, capture_error_mode="thread_local"):
            self._compute()
        with torch.cuda.graph(update, capture_error_mode="thread_local"):
            self._update()
        self._forward, self._apply = forward.replay, update.replay
        self.weights.copy_(before[0])
        self.average.copy_(before[1])
        self.running_norm.zero_()
        self.skipped.zero_()
        for optimizer in self.optimizers:
            for state in optimizer.state.values():
                for value in state.values():
                    value.zero_()

    def _draw(self, step: int) -> None:
        config = self.config
        self.generator.manual_seed((config.seed * self.world + self.rank) * 1_000_003 + step)
        audio = self.segments.draw(config.batch, self.generator)
        u = torch.rand(4, config.batch, 1, device=self.device, generator=self.generator)
        gain = torch.where(u[0] < config.gain, 10 ** (-0.6 * u[1]), 1.0)
        self.audio.copy_(audio * gain)
        self.sigma.copy_(torch.where(u[2] < config.spread, u[3], config.sigma))
        self.objective.fill(self.noise, self.generator)

    def step(self) -> dict[str, Tensor]:
        """One step; the returned scalars are overwritten by the next."""
        self.learning_rate.fill_(self.config.rate(self.done))
        # A short average at first, lest it remember where training started.
        self.decay.fill_(min(self.config.ema, (1 + self.done) / (10 + self.done)))
        self._draw(self.done)
        self._forward()
        if self.world > 1:
            torch.distributed.all_reduce(self.gradients)
        self._apply()
        self.done += 1
        if self.done % PROJECT_EVERY == 0 or self.done == self.config.steps:
            self._project()
        return self.terms

    def _project(self) -> None:
        floor = self.config.mixing_floor
        for tensors in (self._views(self.weights), self._views(self.average)):
            for name, p in tensors.items():
                if floor and name.endswith("mixing"):
                    p.copy_(limit_conditioning(p, floor))

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        """A flat tensor as tensors by parameter name."""
        views, at = {}, 0
        for name, p in self.network.named_parameters():
            views[name] = flat[at : at + p.numel()].view_as(p)
            at += p.numel()
        return views

    def averaged(self) -> Network:
        """A copy of the network with the averaged weights."""
        network = type(self.network)(self.network.config).to(self.device)
        network.load_state_dict(self._views(self.average))
        return network

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "model_config": self.network.config.to_dict(),
            "train_config": asdict(self.config),
            "objective": type(self.objective).__name__,
            "done": self.done,
            "weights": self.weights,
            "average": self.average,
            "running_norm": self.running_norm,
            "skipped": self.skipped,
            "optimizers": [
                [dict(optimizer.state[p]) for p in _members(optimizer)]
                for optimizer in self.optimizers
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            InputError: It is of another model or objective.
        """
        if state["model_config"] != self.network.config.to_dict():
            raise InputError("the training state is of a model with other hyperparameters")
        mine = self.state_dict()
        if (state["objective"], len(state["optimizers"])) != (
            mine["objective"],
            len(mine["optimizers"]),
        ):
            raise InputError("the training state is of another objective or another train.muon")
        self.done = int(state["done"])
        for name in ("weights", "average", "running_norm", "skipped"):
            getattr(self, name).copy_(state[name])
        for optimizer, states in zip(self.optimizers, state["optimizers"], strict=True):
            for p, values in zip(_members(optimizer), states, strict=True):
                mine = optimizer.state[p]
                for name, value in values.items():
                    if name in mine:
                        mine[name].copy_(value)
                    else:
                        mine[name] = value.clone()

    def save(self, path: Path) -> None:
        """Write the state so that the file is whole or absent."""
        with replacing(path) as (part,):
            torch.save(self.state_dict(), part)

    def load(self, path: Path) -> dict[str, Any]:
        """Read what :meth:`save` wrote, without executing anything in it.

        Returns:
            The :class:`TrainConfig` that it was written under, as a dictionary.

        Raises:
            InputError: It is damaged, or of another model or objective.
        """
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.load_state_dict(state)
            return dict(state["train_config"])
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (UnpicklingError, OSError, RuntimeError, EOFError, LookupError, TypeError) as error:
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise InputError(f"{path}: cannot be read as a training state ({reason})") from None


def limit_conditioning(matrix: Tensor, floor: float) -> Tensor:
    """The matrix with its singular values limited to [floor, 1 / floor], in float64 on the CPU.

    Without it the spectral losses teach the 1x1 convolutions to discard noise, until some have
    no usable inverse (a published weight of 2,700, latents of 10^8).
    """
    u, s, v = torch.linalg.svd(matrix.double().cpu())
    limited: Tensor = (u * s.clamp(floor, 1 / floor)) @ v
    return limited.to(matrix)


def _members(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _decays(name: str) -> bool:
    return not name.endswith(("bias", "mixing")) and not name.startswith("convinv.")
