"""Checkpoints of a training whose options have changed since."""

import dataclasses

import jax.numpy as jnp
import pytest

from smcdiff import InputError
from smcdiff.training import TrainConfig, _loop


def test_an_option_that_came_later_had_its_default(tmp_path, monkeypatch):
    """A checkpoint of a version without --layers was made with one layer."""
    state = _loop.State(jnp.ones(2), jnp.ones(2), (), jnp.int32(3), jnp.float32(1.0))
    file, config, options = tmp_path / "checkpoint", TrainConfig(), _loop._options
    with monkeypatch.context() as before:
        before.setattr(
            _loop, "_options", lambda c: {n: v for n, v in options(c).items() if n != "layers"}
        )
        _loop._save_checkpoint(file, state, config)
    assert int(_loop._load_checkpoint(file, state, config).step) == 3
    with pytest.raises(InputError, match=r"\(layers was 1, is 2\); use the same"):
        _loop._load_checkpoint(file, state, dataclasses.replace(config, layers=2))
