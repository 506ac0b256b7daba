"""The 1x1 convolutions' inverses, determinants and gradients are those of torch.linalg."""

import pytest
import torch

from fastglow.training.mixing import inverses, limit_conditioning


def matrices(*sizes: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, n, dtype=torch.float64, generator=generator) for n in sizes]


def without_diagonal(size: int) -> torch.Tensor:
    """Invertible, and zero wherever elimination without pivoting would divide first."""
    return torch.eye(size, dtype=torch.float64).roll(1, 0) * torch.arange(1, size + 1)


@pytest.mark.parametrize(
    "given",
    [matrices(8, 8, 6, 4), matrices(2), matrices(1, 16), [without_diagonal(n) for n in (4, 8, 6)]],
    ids=["mixed sizes", "one", "least and most", "zeros on the diagonal"],
)
def test_equals_linalg(given: list[torch.Tensor]) -> None:
    found, log_dets = inverses(given)
    for inverse, log_det, matrix in zip(found, log_dets, given, strict=True):
        torch.testing.assert_close(inverse, torch.linalg.inv(matrix), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(log_det, torch.linalg.slogdet(matrix)[1])


def test_pivots_are_the_largest() -> None:
    """Without a choice of pivots the small one would swallow the ones beside it."""
    matrix = torch.tensor([[1e-17, 1.0], [1.0, 1.0]], dtype=torch.float64)
    (found,), _ = inverses([matrix])
    torch.testing.assert_close(found, torch.tensor([[-1.0, 1.0], [1.0, 0.0]]).double())


@pytest.mark.parametrize("given", [matrices(8, 4, 6), [without_diagonal(4), *matrices(2)]])
def test_gradients(given: list[torch.Tensor]) -> None:
    leaves = [m.clone().requires_grad_() for m in given]

    def flat(*m: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found, log_dets = inverses(m)
        return *found, log_dets

    assert torch.autograd.gradcheck(flat, leaves)


def test_fp32_is_eliminated_in_float64() -> None:
    given = [m.float() for m in matrices(8, 6)]
    found, log_dets = inverses(given)
    assert {t.dtype for t in (*found, log_dets)} == {torch.float32}
    for inverse, matrix in zip(found, given, strict=True):
        assert torch.equal(inverse, torch.linalg.inv(matrix.double()).float())


def test_a_singular_matrix_is_not_finite_and_spoils_no_other() -> None:
    regular, singular = matrices(4)[0], torch.ones(4, 4, dtype=torch.float64)
    (good, bad), log_dets = inverses([regular, singular])
    torch.testing.assert_close(good, torch.linalg.inv(regular))
    assert not torch.isfinite(bad).any()
    assert torch.isfinite(log_dets).tolist() == [True, False]


def test_conditioning_is_limited() -> None:
    u, v = (torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0] for _ in range(2))
    matrix = u @ torch.diag(torch.tensor([300.0, 2.0, 0.5, 1e-6]).double()) @ v
    limited = limit_conditioning(matrix, 0.02)
    expected = torch.tensor([50.0, 2.0, 0.5, 0.02]).double()
    torch.testing.assert_close(torch.linalg.svdvals(limited), expected)
    torch.testing.assert_close(limit_conditioning(limited, 0.02), limited)


def test_values_are_not_looked_at() -> None:
    """What a CUDA graph cannot capture raises on tensors without values."""
    leaves = [torch.empty(n, n, device="meta", requires_grad=True) for n in (8, 6, 4)]
    found, log_dets = inverses(leaves)
    (log_dets.sum() + sum(w.sum() for w in found)).backward()
    assert all(leaf.grad is not None and leaf.grad.shape == leaf.shape for leaf in leaves)
