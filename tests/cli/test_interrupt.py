"""Ctrl-C: exit code 130 at once, nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smcdiff.cli.interrupt import interruptible


@pytest.fixture
def ctrl_c():
    """The handler that Python has in a terminal; where tests run in the background it has none."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_a_run(smcdiff, monkeypatch, tmp_path, ctrl_c):
    """The compiled run, which never looks at signals, is left behind; the process ends it."""

    def compiled(*_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1.0)

    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr("smcdiff.sampler.smc.run", compiled)
    monkeypatch.setattr("smcdiff.cli.interrupt._GRACE", 0.0)
    monkeypatch.setattr("os._exit", leave)
    code, _, err = smcdiff("solve", "inpaint")
    assert code == 130 and err.splitlines()[-1] == "smcdiff: interrupted"
    assert not list(tmp_path.iterdir())


def test_ctrl_c_lets_python_code_end_its_own_way(ctrl_c):
    ended = []

    def work():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                time.sleep(0.01)
        except KeyboardInterrupt:
            ended.append(True)
            raise

    with pytest.raises(KeyboardInterrupt):
        interruptible(work)
    assert ended == [True]
    assert interruptible(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 / 0)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["solve inpaint --steps 10000", "sample --steps 10000"])
def test_ctrl_c_in_a_process(tmp_path, words):
    command = [sys.executable, "-m", "smcdiff", *words.split()]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    process.stderr.readline()  # of the progress: the run has started
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert err.splitlines()[-1] == "smcdiff: interrupted"
    assert not list(tmp_path.iterdir())
