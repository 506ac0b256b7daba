"""Every dialect, through every path, against float64 outputs of the original implementation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fastglow.checkpoint import load_weights
from fastglow.engines.cpu import CpuEngine
from fastglow.plan import Plan
from fastglow.plan.evaluate import evaluate
from fastglow.reference import WaveGlow

from models import relative_error

DATA = Path(__file__).parent / "data" / "checkpoints"
INDEX = json.loads((DATA / "index.json").read_text())
EXACT = {"tiny-module.pt", "tiny-module-legacy.pt"}  # the very weights of the golden output
HALF = {"tiny-half.pt"}  # rounded to fp16 after the golden output was made


class Case:
    """One checkpoint with its golden output."""

    def __init__(self, entry):
        self.weights = load_weights(DATA / entry["file"])
        golden = np.load(DATA / entry["golden"])
        self.mel, self.audio = golden["mel"].astype(np.float64), golden["audio"]
        self.sigma = float(golden["sigma"])
        names = sorted(name for name in golden.files if name[0] == "z")
        drawn = [golden[name].astype(np.float64) for name in names]
        lowest_first = np.concatenate(drawn[::-1], axis=1)  # the last drawn is the lowest
        self.noise = lowest_first.transpose(0, 2, 1).reshape(len(self.mel), -1)

    def reference(self):
        network = WaveGlow.from_weights(self.weights)
        with torch.inference_mode():
            audio = network.infer(torch.tensor(self.mel), torch.tensor(self.noise), self.sigma)
        return audio.numpy()


@pytest.fixture(params=INDEX, ids=lambda entry: entry["file"])
def entry(request):
    return request.param


def test_hyperparameters_are_those_of_the_index(entry):
    expected = dict(entry["config"])
    expected["wn"] = expected.pop("WN_config")
    found = load_weights(DATA / entry["file"]).config.to_dict()
    assert {key: found[key] for key in expected} == expected


def test_reference_plan_and_cpu_engine_give_the_golden_audio(entry):
    case = Case(entry)
    reference = case.reference()
    limit = 1e-10 if entry["file"] in EXACT else 2e-3 if entry["file"] in HALF else 1e-7
    assert relative_error(reference, case.audio) <= limit

    plan = Plan(case.weights)
    rows = zip(case.mel, case.noise, strict=True)
    rewritten = np.stack([evaluate(plan, mel, z, case.sigma) for mel, z in rows])
    assert relative_error(rewritten, reference) <= 1e-9

    lengths = [case.mel.shape[2]] * len(case.mel)
    noise = (case.sigma * case.noise).astype(np.float32)
    cpu = CpuEngine(plan).infer(case.mel.astype(np.float32), noise, lengths)
    assert relative_error(cpu, reference) <= 5e-6
    if entry["file"] not in HALF:
        assert relative_error(cpu, case.audio) <= 5e-6
