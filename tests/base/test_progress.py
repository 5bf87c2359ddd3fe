"""The progress of a run: short logs, a bar that goes again, and calls that can do no harm."""

import io

import pytest

from smcdiff.base._progress import ProgressBar, begin, progress_of


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


class Number:
    """A loss on the device, which knows whether anybody has waited for it."""

    def __init__(self):
        self.read = 0

    def __float__(self):
        self.read += 1
        return 3.0


def test_a_line_every_tenth_without_a_terminal():
    stream = io.StringIO()
    with ProgressBar("Filtering", stream) as progress:
        for t in [0, *range(2, 201, 2), 150]:
            progress(t, 200, {"ess": 12.0})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("Filtering: 0/200 steps")
    assert lines[10].startswith("Filtering: 200/200 steps") and lines[10].endswith("ESS 12")
    progress(201, 200, {"ess": 1.0})  # outside the context: nothing
    assert len(stream.getvalue().splitlines()) == 11


def test_a_log_says_at_once_that_a_run_began():
    """Before the first step, which may wait for a compiler by the minute."""
    stream = io.StringIO()
    with ProgressBar("Filtering", stream) as progress:
        assert stream.getvalue() == ""  # nothing is checked yet, and an error is one line
        for _ in range(2):
            begin(progress)
        assert stream.getvalue() == "Filtering: begins, and compiles first\n"
    begin(lambda t, num_steps, info: None)
    with ProgressBar("Filtering", terminal := Terminal()) as progress:
        begin(progress)
    assert "begins" not in terminal.getvalue()


def test_time_left_is_without_that_of_compilation(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    stream = io.StringIO()
    with ProgressBar("Filtering", stream) as progress:
        for t, seconds in ((0, 100.0), (5, 105.0)):
            now[0] = seconds
            progress(t, 10, {})
    first, second = stream.getvalue().splitlines()
    assert first == "Filtering: 0/10 steps, 100.0 s"
    assert second == "Filtering: 5/10 steps, 105.0 s, 5.0 s left"


def test_a_long_run_without_a_terminal_is_not_silent(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    stream = io.StringIO()
    with ProgressBar("Filtering", stream) as progress:
        for t in range(10):  # none of which is a tenth of the run
            progress(t, 1000, {})
            now[0] += 20.0
    steps = [line.split()[1] for line in stream.getvalue().splitlines()]
    assert steps == ["0/1000", "2/1000", "4/1000", "6/1000", "8/1000"]


def test_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream, loss = Terminal(), Number()
    with ProgressBar("Filtering", stream) as progress:
        for t in range(5001):
            progress(t, 5000, {"loss": loss})
    shown = stream.getvalue()
    assert "5000/5000" in shown and "loss 3.0000" in shown
    assert 1 <= loss.read < 500  # reading waits for the device, so it is seldom
    # The cursor is back, and the line is erased.
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l") >= 0
    assert "\x1b[2K" in shown[shown.rfind("5000/5000") :]


def test_bar_goes_however_the_run_ends(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt):
        with ProgressBar("Filtering", stream) as progress:
            progress(3, 50, {})
            raise KeyboardInterrupt
    shown = stream.getvalue()
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l") >= 0
    progress(4, 50, {})
    assert stream.getvalue() == shown


def test_a_terminal_that_has_gone_does_not_end_the_run(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    with ProgressBar("Filtering", Gone()) as progress:
        progress(0, 10, {})
    monkeypatch.setattr("sys.stderr", None)  # `2>&-`
    with ProgressBar("Filtering") as progress:
        progress(0, 10, {})


def test_what_a_run_accepts_as_progress(capsys):
    for choice, lines in ((True, 11), (False, 0)):
        with progress_of(choice, "Filtering") as progress:
            for t in range(11):
                progress(t, 10, {})
        assert len(capsys.readouterr().err.splitlines()) == lines
    seen = []
    with progress_of(lambda *arguments: seen.append(arguments)) as progress:
        progress(3, 10, {"ess": 1.0})
    assert seen == [(3, 10, {"ess": 1.0})]
