"""Ctrl-C: exit code 130, at the next step of the work or after a short grace, and nothing left."""

import importlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import tomllib

import numpy as np
import pytest

from smcdiff import SMC, __version__
from smcdiff.base._progress import ProgressBar
from smcdiff.cli import sampler
from smcdiff.cli.interrupt import interruptible
from tests.cli.processes import start


@pytest.fixture
def ctrl_c():
    """The handler that Python has in a terminal; where tests run in the background it has none."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def test_the_work_ends_where_it_calls_progress(ctrl_c):
    """Between two steps, so that what is written there is whole, in the thread of the work."""
    steps, closed = [], []

    def work(progress):
        try:
            for t in range(1000):
                if t == 3:
                    press_ctrl_c()
                time.sleep(0.01)
                steps.append(t)
                progress(t, 1000, {})
        finally:
            closed.append(threading.current_thread() is not threading.main_thread())

    with pytest.raises(KeyboardInterrupt):
        interruptible(work, ProgressBar())
    assert closed == [True] and 4 <= len(steps) < 1000


def test_results_and_errors_of_the_work_come_through(capsys):
    def work(progress):
        progress(2, 2, {})
        return 3

    assert interruptible(work, ProgressBar()) == 3
    assert "2/2 steps" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda progress: 1 / 0, ProgressBar())


_SLOW = """
import sys, time
print("importing", flush=True)
try:
    time.sleep(30)
except BaseException:  # as a package that tries imports may do
    time.sleep(30)
"""
_COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
from smcdiff_command import main
main()
"""


def test_ctrl_c_while_the_package_is_imported(tmp_path):
    (tmp_path / "smcdiff").mkdir()
    (tmp_path / "smcdiff" / "__init__.py").write_text(_SLOW)
    root = pathlib.Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}, cwd=tmp_path,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130 and err == "smcdiff: interrupted\n"


def test_the_command_that_is_installed(smcdiff, capsys, monkeypatch):
    """Ctrl-C is Python's again once the package is there."""
    scripts = tomllib.loads((pathlib.Path(__file__).parents[2] / "pyproject.toml").read_text())
    module, function = scripts["project"]["scripts"]["smcdiff"].split(":")
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(sys, "argv", ["smcdiff", "--version"])
    with pytest.raises(SystemExit) as ended:
        getattr(importlib.import_module(module), function)()
    assert not ended.value.code and capsys.readouterr().out.strip() == __version__
    assert signal.getsignal(signal.SIGINT) is before


def test_compiled_code_is_left_behind(smcdiff, monkeypatch, tmp_path, ctrl_c):
    """A compiled run never looks at flags; the end of the process ends it."""

    class Compiled(SMC):
        def __init__(self, *_, **__):
            pass

        def run(self, *_, **__):
            press_ctrl_c()
            time.sleep(1.0)

    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(sampler, "SMC", Compiled)
    monkeypatch.setattr("smcdiff.cli.interrupt._GRACE", 0.0)
    monkeypatch.setattr("os._exit", leave)
    code, _, err = smcdiff("solve", "inpaint")
    assert code == 130 and err.splitlines()[-1] == "smcdiff: interrupted"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "solve inpaint --steps 10000",
        "sample --steps 10000 --number 100000",
        "train data.npy -o out --steps 10000 --channels 16 --batch-size 4",
    ],
)
def test_ctrl_c_in_a_process(tmp_path, words):
    np.save(tmp_path / "data.npy", np.random.default_rng(0).integers(0, 255, (64, 8, 8), np.uint8))
    process = start(tmp_path, *words.split())
    assert process.stderr is not None
    process.stderr.readline()  # of the progress: the run has started
    process.send_signal(signal.SIGINT)
    began = time.perf_counter()
    _, err = process.communicate(timeout=60)
    assert time.perf_counter() - began < 20
    assert process.returncode == 130 and "Traceback" not in err
    assert err.splitlines()[-1] == "smcdiff: interrupted"
    assert [file.name for file in tmp_path.iterdir()] == ["data.npy"]
