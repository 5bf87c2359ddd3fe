"""Every experiment runs at its smoke size."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "experiments"


# Many programs, or the digits' network many times over: they run with the slow checks.
SLOW = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in (
        "guidance",
        "flow",
        "mnist_learned",
        "learned_calibration",
        "calibration",
        "cost",
        "devices",
        "large_images",
        "stein",
        "gmm_linear",
        "tds_toys",
        "mnist_exact",
        "learned_twist",
        "unknown_parameters",
        "particle_gibbs",
        "nonlinear",
        "likelihoods",
        "convergence",
        "arviz",
        "evidence_error",
        "worked_examples",
        "shapes",
        "clip",
        "captions",
        "text_pareto",
        "cascade",
        "encoder_ablation",
        "failures",
        "emoji",
    )
]


@pytest.mark.parametrize(
    "name",
    [
        "gmm_256",
        *SLOW,
    ],
)
def test_smoke(name, tmp_path, monkeypatch, request):
    if name == "worked_examples":
        request.getfixturevalue("broadcasting")  # of NumPyro's StudentT
    monkeypatch.syspath_prepend(str(ROOT / name))
    monkeypatch.setattr(sys, "argv", ["run.py", "--smoke", "--output", str(tmp_path)])
    runpy.run_path(str(ROOT / name / "run.py"), run_name="__main__")
    assert "--smoke" in (tmp_path / "results.md").read_text()
