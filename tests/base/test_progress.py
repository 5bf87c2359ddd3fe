"""The progress bar: short logs, harmless late calls, reusable."""

import io

import jax

from smcdiff.base.progress import ProgressBar
from smcdiff.smc import particle_filter
from tests.smc.models import LinearGaussian, observations


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_a_line_every_tenth_without_a_terminal():
    stream = io.StringIO()
    bar = ProgressBar(200, "Filtering", stream)
    for _ in range(2):  # entered again for a second run
        with bar as progress:
            for t in [0, *range(2, 201, 2), 150]:
                progress(t, 200, {"ess": 12.0})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 * 11
    assert lines[0].startswith("Filtering: 0/200 steps")
    assert lines[10].startswith("Filtering: 200/200 steps") and lines[10].endswith("ESS 12")
    bar(3, 200, {"ess": 1.0})  # outside the context: nothing
    assert len(stream.getvalue().splitlines()) == 22


def test_bar_on_a_terminal():
    stream = Terminal()
    with ProgressBar(50, "Filtering", stream) as progress:
        for t in range(51):
            progress(t, 50, {"ess": 3.0})
    assert "50/50" in stream.getvalue()


def test_with_the_filter(capsys):
    bar = ProgressBar(30, "Filtering")
    with bar:
        particle_filter(jax.random.key(0), LinearGaussian(observations(31)), 8, 30, progress=bar)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 12
    assert "30/30 steps" in lines[-1]
