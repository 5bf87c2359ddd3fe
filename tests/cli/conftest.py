"""Running commands in this process, in an empty folder."""

import functools

import pytest

from smcdiff import cli
from smcdiff.store import prior, shipped


@pytest.fixture
def smcdiff(tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr("sys.argv", ["smcdiff", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def refused(smcdiff, tmp_path, monkeypatch):
    """Runs a command with bad input: exit code 2, one line with these words, nothing written."""

    def started(*_, **__):
        raise AssertionError("long work has started")

    for place in ("training.prior.minimise", "training.classifier.minimise",
                  "training.amortized.minimise", "training.twist.minimise",
                  "training._simulator.Simulator.draws",
                  "base._progress.ProgressBar.__call__"):  # fmt: skip
        monkeypatch.setattr(f"smcdiff.{place}", started)
    for command in ("solve", "sample"):
        monkeypatch.setattr(f"smcdiff.cli.{command}.load_prior", _load_prior)

    def check(words, *message):
        before = _contents(tmp_path)
        code, _, err = smcdiff(*words)
        assert code == 2 and len(err.splitlines()) == 1, err
        assert err.startswith("smcdiff: ")
        assert all(word in err for word in message), err
        assert _contents(tmp_path) == before

    return check


_load = prior.load_prior
_load_once = functools.cache(_load)


def _load_prior(name):
    is_shipped = name in {info.name for info in shipped.list_priors()}
    return _load_once(name) if is_shipped else _load(name)


def _contents(folder):
    return {file: file.is_file() and file.read_bytes() for file in folder.rglob("*")}
