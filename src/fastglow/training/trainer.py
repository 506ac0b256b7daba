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
from fastglow.training.adversary import Adversary
from fastglow.training.data import Segments
from fastglow.training.flat import Flat
from fastglow.training.likelihood import objective_of
from fastglow.training.mixing import limit_conditioning
from fastglow.training.network import InverseNetwork
from fastglow.training.objective import Kind, TrainConfig
from fastglow.training.optimizers import critic_optimizer, is_trained, make_optimizers

PROJECT_EVERY = 100


class Trainer:
    """Training that can go on from a file: ``step`` until done, ``save`` now and then.

    A step's segments and noise depend on (seed, step, rank) alone. On CUDA the forward and
    backward passes are one graph and the update another, with the sum over devices between.

    Args:
        network: Trained in place.
        segments: Where to draw from; its margin must be the objective's.
        config: How.
        rank: Of this process among ``world``.
        world: Processes, each with its device, through ``torch.distributed``.
        capture: Whether to use CUDA graphs.
        objective: What is minimised.

    Attributes:
        done: Steps done.
        skipped: [2], steps that were not finite: all of them, and those since the last good one.
    """

    def __init__(
        self, network: InverseNetwork, segments: Segments, config: TrainConfig, rank: int = 0,
        world: int = 1, capture: bool = True, objective: Kind = "inverse",
    ) -> None:  # fmt: skip
        self.network, self.segments, self.config = network, segments, config
        self.rank, self.world, self.kind = rank, world, objective
        self.device = next(network.parameters()).device
        self.objective = objective_of(objective, network, config).to(self.device)
        margin = self.objective.analysis.margin
        if segments.length != config.segment + 2 * margin:
            raise InputError(
                f"segments of {segments.length} samples; expected {config.segment} and a margin "
                f"of {margin} on both sides"
            )
        self.done = 0
        network.products = config.products
        for name, p in network.named_parameters():
            p.requires_grad_(is_trained(name, config.flows))
        self._flat = Flat(network)
        self.weights, self.gradients = self._flat.weights, self._flat.gradients
        self.average = self.weights.clone()
        self._adversary: Adversary | None = getattr(self.objective, "adversary", None)
        self._critic = Flat(self._adversary) if self._adversary else None
        self.learning_rate = torch.zeros((), device=self.device)
        self.critic_rate = torch.zeros((), device=self.device)
        self.optimizers = make_optimizers(network, config, objective, self.learning_rate)
        if self._adversary:
            self.optimizers.append(critic_optimizer(self._adversary, self.critic_rate))
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

    def _compute(self) -> None:
        self.gradients.zero_()
        terms = self.objective(self.audio, self.noise, self.sigma)
        if self._critic:
            self._critic.gradients.zero_()
            terms["critic"].backward()
        terms["loss"].backward()
        self.terms = {n: t.detach() for n, t in terms.items()}

    def _update(self) -> None:
        """Clip to twice the usual norm, skip a step that is not finite, update, average."""
        norm = self.gradients.norm() / self.world
        fine = torch.isfinite(norm)
        if self._critic:
            fine = fine & torch.isfinite(self._critic.gradients.norm())
        usual = torch.where(self.running_norm > 0, self.running_norm, norm)
        scale = torch.clamp(2 * usual / (norm + 1e-12), max=1.0) / self.world
        torch.nan_to_num_(self.gradients, nan=0.0, posinf=0.0, neginf=0.0)
        self.gradients.mul_(torch.where(fine, scale, 0.0))
        moved = torch.lerp(usual, torch.minimum(norm, 2 * usual), 0.02)
        self.running_norm.copy_(torch.where(fine, moved, self.running_norm))
        self.terms["norm"] = norm
        self.learning_rate.mul_(fine)  # momentum and decay would move the weights all the same
        if self._critic:
            torch.nan_to_num_(self._critic.gradients, nan=0.0, posinf=0.0, neginf=0.0)
            self._critic.gradients.mul_(fine / self.world)
            self.critic_rate.mul_(fine)
        self.skipped.add_(~fine).mul_(torch.stack([torch.ones_like(fine), ~fine]))
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.lerp_(self.weights, 1 - self.decay)

    def _capture(self) -> None:
        before = [tensor.clone() for tensor in self.shared()]
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
        for tensor, value in zip(self.shared(), before, strict=True):
            tensor.copy_(value)
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
        if self._adversary:
            share = self.config.rate(self.done) / self.config.learning_rate
            self.critic_rate.fill_(share * self.config.adversary.learning_rate)
            risen = min(1.0, (self.done + 1) / max(1, self.config.warmup))
            self._adversary.get_buffer("trust").fill_(risen)
        # A short average at first, lest it remember where training started.
        self.decay.fill_(min(self.config.ema, (1 + self.done) / (10 + self.done)))
        self._draw(self.done)
        self._forward()
        for flat in (self._flat, self._critic) if self.world > 1 else ():
            if flat:
                torch.distributed.all_reduce(flat.gradients)
        self._apply()
        self.done += 1
        if self.done % PROJECT_EVERY == 0 or self.done == self.config.steps:
            self._project()
        return self.terms

    def _project(self) -> None:
        floor = self.config.mixing_floor if self.kind == "inverse" else 0.0
        for tensors in (self._flat.views(self.weights), self._flat.views(self.average)):
            for name, p in tensors.items():
                trained = is_trained(name, self.config.flows)
                if floor and trained and name.endswith("mixing"):
                    p.copy_(limit_conditioning(p, floor))

    def averaged(self) -> InverseNetwork:
        """A copy of the network with the averaged weights."""
        network = type(self.network)(self.network.config).to(self.device)
        network.load_state_dict(self._flat.views(self.average))
        return network

    def shared(self) -> list[Tensor]:
        """What all processes must begin with."""
        return [self.weights, self.average, *([self._critic.weights] if self._critic else [])]

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "model_config": self.network.config.to_dict(),
            "train_config": asdict(self.config),
            "objective": type(self.objective).__name__,
            "layout": self._layout(),
            "done": self.done,
            "weights": self.weights,
            "average": self.average,
            "critic": self._critic.weights if self._critic else None,
            "running_norm": self.running_norm,
            "skipped": self.skipped,
            "optimizers": [
                [dict(optimizer.state[p]) for p in _members(optimizer)]
                for optimizer in self.optimizers
            ],
        }

    def _layout(self) -> list[Any]:
        """What must be alike for a state to fit."""
        critic, config = self._critic, self.config.adversary
        optimizers = [type(optimizer).__name__ for optimizer in self.optimizers]
        judges = [config.periods, config.windows, critic.layout] if critic else []
        flows = [self.config.flows] if self.config.flows else []
        return [self._flat.layout, optimizers, judges, *flows]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            InputError: It is of another model or objective.
        """
        if state["model_config"] != self.network.config.to_dict():
            raise InputError("the training state is of a model with other hyperparameters")
        if any(state[name] != self.state_dict()[name] for name in ("objective", "layout")):
            raise InputError(
                "the training state is of another objective, train.muon, train.flows or "
                "train.adversary; set them as they were, or write to another folder"
            )
        self.done = int(state["done"])
        for name in ("weights", "average", "running_norm", "skipped"):
            getattr(self, name).copy_(state[name])
        if self._critic:
            self._critic.weights.copy_(state["critic"])
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
        except (
            UnpicklingError,
            OSError,
            RuntimeError,
            EOFError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise InputError(f"{path}: cannot be read as a training state ({reason})") from None


def _members(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
