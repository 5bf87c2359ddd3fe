"""The progress of a run: short logs, a bar that goes again, and calls that can do no harm."""

import io

import pytest

from smcdiff.base._progress import ProgressBar, progress_of


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
