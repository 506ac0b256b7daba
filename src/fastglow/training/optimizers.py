"""What is trained, and by which optimizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastglow.training.muon import Muon
from fastglow.training.objective import Kind, TrainConfig

CRITIC_BETAS = (0.8, 0.99)
MATRICES = ("in_weight", "cond_weight", "res_weight", "skip_weight")


def is_trained(name: str, flows: int) -> bool:
    """Whether a network's parameter is of its first ``flows`` flows (any, if ``flows`` is 0)."""
    return not flows or (name.startswith("flows.") and int(name.split(".")[1]) < flows)


def make_optimizers(
    network: nn.Module, config: TrainConfig, objective: Kind, rate: Tensor
) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon beside it if it has something to do.

    Args:
        network: Those of its parameters that require gradients are optimised.
        config: How.
        objective: Muon serves the inverse alone.
        rate: The learning rate, a scalar that is read at each step.
    """
    muon = config.muon and objective == "inverse"
    named = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    matrices = [p for n, p in named if muon and n.endswith(MATRICES)]
    taken = {id(p) for p in matrices}
    decayed = [p for n, p in named if _decays(n) and id(p) not in taken]
    others = [p for n, p in named if not _decays(n)]
    adam = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=rate, betas=config.betas, eps=1e-9, **_on(rate),
    )  # fmt: skip
    if not matrices:
        return [adam]
    return [adam, Muon(matrices, rate, weight_decay=config.weight_decay)]


def critic_optimizer(adversary: nn.Module, rate: Tensor) -> torch.optim.Optimizer:
    """AdamW for the discriminators, with a rate of their own."""
    members = adversary.parameters()
    return torch.optim.AdamW(
        members, lr=rate, betas=CRITIC_BETAS, weight_decay=0.0, **_on(rate)
    )  # fmt: skip


def _on(rate: Tensor) -> dict[str, bool]:
    """What a CUDA graph of the step needs."""
    return {"fused": rate.is_cuda, "capturable": rate.is_cuda}


def _decays(name: str) -> bool:
    return not name.endswith(("bias", "mixing"))
