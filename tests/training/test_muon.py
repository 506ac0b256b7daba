"""Muon's direction is the polar factor of the averaged gradient, at Adam's scale."""

import pytest
import torch

from fastglow.training.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (20, 6)])
def test_singular_values_go_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    values = torch.linalg.svdvals(orthogonalise(matrix, steps=8))
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3


def test_first_step_follows_the_polar_factor() -> None:
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.zeros(2, 8, 32))
    p.grad = torch.randn(2, 8, 32)
    Muon([p], lr=0.1).step()
    u, _, v = torch.linalg.svd(p.grad, full_matrices=False)
    expected = -0.1 * 0.2 * 32**0.5 * (u @ v)
    cosine = (p.detach() * expected).sum() / (p.detach().norm() * expected.norm())
    assert float(cosine) > 0.97
    rms = p.detach().square().mean().sqrt()
    assert float(rms) == pytest.approx(0.1 * 0.2, rel=0.25)


def test_decay_is_decoupled() -> None:
    p = torch.nn.Parameter(torch.ones(4, 4))
    p.grad = torch.zeros(4, 4)
    Muon([p], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(p.detach(), torch.full((4, 4), 0.95))
