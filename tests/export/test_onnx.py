"""The exported graph in other people's runtimes against the plan in float64."""

import sys
from pathlib import Path

import numpy as np
import pytest

from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError
from fastglow.export import onnx as exporter
from fastglow.plan import Plan
from fastglow.plan.evaluate import evaluate

from models import ODD, RAGGED, TINY, random_input, random_weights

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
CASES = [(c, form) for c in ODD.values() for form in ("phases", "published")] + [
    (RAGGED, "published")
]
NAMES = [f"{name}-{form}" for name in ODD for form in ("phases", "published")] + ["ragged"]


def exported(config: WaveGlowConfig, form: str, path: Path) -> Plan:
    plan = Plan(random_weights(config), form)  # type: ignore[arg-type]
    exporter.export_onnx(plan, path)
    return plan


def compare(run: object, plan: Plan, frames: int, rows: int) -> None:
    mel, z = random_input(plan.config, frames, rows=rows)
    noise = (0.6 * z).astype(np.float32)
    found = run({"mel": mel.astype(np.float32), "noise": noise})[0]  # type: ignore[operator]
    assert found.shape == noise.shape
    for row in range(rows):
        expected = evaluate(plan, mel[row], z[row], 0.6)
        assert np.abs(found[row] - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize(("config", "form"), CASES, ids=NAMES)
def test_onnx_s_reference_gets_the_plan_s_audio(
    config: WaveGlowConfig, form: str, tmp_path: Path
) -> None:
    from onnx.reference import ReferenceEvaluator

    plan = exported(config, form, tmp_path / "m.onnx")
    session = ReferenceEvaluator(str(tmp_path / "m.onnx"))
    compare(lambda feeds: session.run(None, feeds), plan, 3, 2)


@pytest.mark.parametrize("form", ["phases", "published"])
def test_onnx_runtime_at_any_batch_and_length(form: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    plan = exported(TINY, form, tmp_path / "m.onnx")
    session = runtime.InferenceSession(str(tmp_path / "m.onnx"))
    for frames, rows in ((1, 1), (7, 1), (3, 4)):
        compare(lambda feeds: session.run(None, feeds), plan, frames, rows)


@pytest.mark.parametrize("form", ["phases", "published"])
def test_openvino_at_any_batch_and_length(form: str, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    plan = exported(TINY, form, tmp_path / "m.onnx")
    compiled = openvino.compile_model(
        str(tmp_path / "m.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    for frames, rows in ((1, 1), (5, 2)):
        compare(lambda feeds: list(compiled(feeds).values()), plan, frames, rows)


def test_a_program_can_ask_for_rate_and_hop(tmp_path: Path) -> None:
    exported(TINY, "published", tmp_path / "m.onnx")
    facts = {p.key: p.value for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert facts == {"sampling_rate": "22050", "hop_length": str(TINY.hop_length)}


def test_a_graph_over_the_format_s_limit_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "MOST", 10_000)
    with pytest.raises(InputError, match="--conditioning published"):
        exported(TINY, "phases", tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"fastglow\[export\]"):
        exported(TINY, "published", tmp_path / "m.onnx")
