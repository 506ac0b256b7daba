"""What all kernels share."""

import numpy as np
import torch

from fastglow.kernels.common import narrowed


def test_tf32_rounds_to_the_nearest_of_ten_bits() -> None:
    values = torch.randn(10_000, dtype=torch.float64) * 10.0 ** torch.randint(-30, 30, (10_000,))
    found = narrowed(values, "tf32")
    mantissa, exponent = np.frexp(values.float().numpy())
    nearest = np.ldexp(np.round(mantissa * 2048) / 2048, exponent)
    ties = np.abs(mantissa) * 2048 % 1 == 0.5
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy()[~ties], nearest[~ties])
    assert torch.equal(narrowed(found, "tf32"), found)
    assert narrowed(torch.tensor([torch.inf]), "tf32").isinf().all()
