"""The WN with bfloat16 products on a CPU, against plain autograd."""

import pytest
import torch

from fastglow.training import half
from fastglow.training.network import InverseNetwork
from fastglow.training.optimizers import is_trained

from wn_cases import CASES, Direction, compare, generated, latents, networks

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
both_ways = pytest.mark.parametrize("direction", [generated, latents])


def arranged(case: dict[str, object]) -> tuple[InverseNetwork, InverseNetwork]:
    plain, halves = networks(case)
    halves.products = "bf16"
    return plain, halves


@every_case
@both_ways
def test_in_fp32_it_is_the_plain_network(
    case: dict[str, object], direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half, "HALF", torch.float32)
    compare(*arranged(case), direction, 1e-5, 1e-5)


@every_case
@both_ways
def test_in_bfloat16_it_is_near_it(case: dict[str, object], direction: Direction) -> None:
    compare(*arranged(case), direction, 2e-2, 1e-1)


@every_case
@pytest.mark.parametrize("frames", [1, 7])
def test_with_frozen_flows_it_gives_the_others_their_gradients(
    case: dict[str, object], frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half, "HALF", torch.float32)
    plain, halves = arranged(case)
    for network in (plain, halves):
        for name, p in network.named_parameters():
            p.requires_grad_(is_trained(name, 1))
    compare(plain, halves, generated, 1e-5, 1e-5, frames)


def test_rows_do_not_touch_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half, "HALF", torch.float32)
    _, halves = arranged(CASES["three flows"])
    mel, noise = torch.randn(2, 5, 7), torch.randn(2, 224)
    with torch.no_grad():
        both = halves(mel, noise)
        for row in range(2):
            alone = halves(mel[row : row + 1], noise[row : row + 1])[0]
            assert (both[row] - alone).norm() / alone.norm() < 1e-5
