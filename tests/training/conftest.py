"""What tests of several trainings share."""

import pytest

from smcdiff.training import _loop as loop


@pytest.fixture
def killed(monkeypatch):
    """Runs a training that is killed as soon as it has written a checkpoint."""

    def run(train, *arguments):
        save = loop._save_checkpoint

        def save_and_die(*arguments):
            save(*arguments)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(loop, "_save_checkpoint", save_and_die)
            train(*arguments)

    return run
