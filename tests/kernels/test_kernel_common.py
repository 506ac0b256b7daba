"""What all kernels share, and what each must have."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import fastglow.kernels
from fastglow.kernels.common import narrowed

TESTS = Path(__file__).parent
MODULES = sorted(Path(fastglow.kernels.__path__[0]).glob("*.py"))
KERNELS = [
    (m.stem, name) for m in MODULES for name in re.findall(r"def (\w+)_kernel\(", m.read_text())
]
REFERENCES = {"prepare": "reference_given"}


@pytest.mark.parametrize(("module", "name"), KERNELS)
def test_every_kernel_has_an_oracle_a_compile_check_and_a_benchmark(module: str, name: str) -> None:
    found = importlib.import_module(f"fastglow.kernels.{module}")
    reference = REFERENCES.get(name, f"reference_{name}")
    assert callable(getattr(found, reference))
    tests = "".join(path.read_text() for path in TESTS.glob("test_kernel_*.py"))
    assert reference in tests
    assert f"{module}.{name}_kernel" in (TESTS / "compile_kernels.py").read_text()
    engine = Path(fastglow.__file__).parent / "engines" / "cuda"
    timed = "".join((engine / file).read_text() for file in ("launches.py", "layers.py"))
    assert re.search(rf"\b{name}\b", timed)


def test_there_are_kernels_to_ask_about() -> None:
    assert ("gate", "gate") in KERNELS
    assert len(KERNELS) >= 7


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
