"""`SMC` killed and gone on with, over eight devices, and over two processes on one machine."""

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from smcdiff import InputError, priors, proposals
from smcdiff.smc import Checkpoint, segments
from tests.sampler.models import NOISE, PRIOR, Y, run, sampler
from tests.sampler.other_processes import _run

ROOT = Path(__file__).parents[2]
HASH_SEEDS = itertools.count(1)
"""The order of sets differs between processes; of NumPyro's fields it did with seeds 1 and 3."""


def start(*arguments, flags=""):
    """A process that makes one of the runs."""
    environment = {
        **os.environ,
        "PYTHONHASHSEED": str(next(HASH_SEEDS)),
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}".strip(),
    }
    command = [sys.executable, "-m", "tests.sampler.other_processes", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=pipe, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_bits(tmp_path):
    """SIGKILL, once at the first checkpoint and once at a random moment after it."""
    moments = random.Random(0)
    for number, wait in enumerate((0.0, moments.uniform(0.0, 0.5))):
        process = start("checkpoint", tmp_path)
        deadline = time.monotonic() + 200.0
        before = set(tmp_path.glob("state/*")) if number else set()
        while not set(tmp_path.glob("state/*[0-9]")) - before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start("checkpoint", tmp_path))
    found, posterior = np.load(tmp_path / "result.npz"), _run()
    np.testing.assert_array_equal(found["samples"], posterior.samples["x"])
    np.testing.assert_array_equal(found["log_evidence"], posterior.log_evidence)
    np.testing.assert_array_equal(found["ess"], posterior.ess)


def assert_close(found, expected):
    np.testing.assert_allclose(found["samples"], expected["samples"], atol=1e-4)
    np.testing.assert_allclose(found["log_evidence"], expected["log_evidence"], atol=1e-4)
    np.testing.assert_array_equal(found["founders"], expected["founders"])


@pytest.mark.slow
def test_eight_devices(tmp_path):
    finish(start("devices", tmp_path, flags="--xla_force_host_platform_device_count=8"))
    assert_close(*(np.load(tmp_path / f"{name}.npz") for name in ("eight", "one")))


def test_two_processes(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    for process in [start("processes", tmp_path, address, number) for number in (0, 1)]:
        finish(process)
    first, second = (np.load(tmp_path / f"{number}.npz") for number in (0, 1))
    np.testing.assert_array_equal(first["samples"], second["samples"])
    posterior = _run()
    assert_close(first, {"samples": posterior.samples["x"], "founders": posterior.founders,
                         "log_evidence": posterior.log_evidence})  # fmt: skip


class Stop(Exception):
    """Ends a run."""


def stop(t, num_steps, info):
    if t == 3:
        raise Stop


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """The folder of a run that its progress ended."""
    monkeypatch.setattr(segments, "SECONDS", 0.0)
    kept = Checkpoint(tmp_path / "state", every=0.0)
    with pytest.raises(Stop):
        run(sampler(num_steps=6, progress_bar=stop), checkpoint=kept)
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda folder: run(sampler(num_steps=6), key=1, checkpoint=folder), "random key"),
        (lambda folder: run(sampler(num_steps=7), checkpoint=folder), "num_steps"),
        (lambda folder: run(sampler(num_steps=6), y=Y + 0.1, checkpoint=folder), "model"),
        (lambda folder: run(sampler(num_steps=6), noise=2 * NOISE, checkpoint=folder), "model"),
        (
            lambda folder: run(sampler(proposals.Bootstrap(), num_steps=6), checkpoint=folder),
            "proposal",
        ),
        (
            lambda folder: run(
                sampler(num_steps=6), checkpoint=folder,
                prior=priors.GaussianMixture([0.3, 0.7], PRIOR.means, 0.6),
            ),
            "model",
        ),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_run_is_refused(stopped, change, what):
    with pytest.raises(InputError, match=f"(?s){what}"):
        change(stopped)


def test_a_stopped_run_goes_on(stopped):
    posterior, again = run(sampler(num_steps=6), checkpoint=stopped), run(sampler(num_steps=6))
    np.testing.assert_array_equal(posterior.samples["x"], again.samples["x"])
    np.testing.assert_array_equal(posterior.log_evidence, again.log_evidence)
    assert jax.numpy.isfinite(posterior.log_evidence).all()
