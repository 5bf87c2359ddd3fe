"""The benchmark of the filter still runs."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_filter_benchmark(tmp_path):
    pytest.importorskip("blackjax", reason="BlackJAX is not installed")
    script = ROOT / "experiments" / "filter_benchmark" / "run.py"
    command = [sys.executable, str(script), "--smoke", "--output", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    assert "| smcdiff, adaptive |" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").stat().st_size > 0
