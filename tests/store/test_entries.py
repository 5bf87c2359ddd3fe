"""Schedules, predictions and errors as entries of config.json, and back to the same bits."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import InputError, priors, schedules
from smcdiff.store import _entries as entries

OBJECTS = [
    schedules.Cosine(t_min=jnp.float32(0.1)),
    schedules.LinearBeta(beta_max=jnp.float32(19.7)),
    schedules.OrnsteinUhlenbeck(),
    schedules.VarianceExploding(t_max=80.0),
]


@pytest.mark.parametrize("schedule", OBJECTS, ids=lambda part: type(part).__name__)
def test_schedules(schedule):
    entry = json.loads(json.dumps(entries.schedule_entry(schedule)))
    assert entry["name"] == type(schedule).__name__
    read = entries.read_schedule(entry)
    assert type(read) is type(schedule)
    for field in dataclasses.fields(schedule):
        first, second = (np.float32(getattr(part, field.name)) for part in (schedule, read))
        assert first == second


class Table(schedules.Schedule):
    """A schedule with arrays, as a model's own betas give it."""

    betas: jnp.ndarray
    t_min: float = dataclasses.field(default=0.1, kw_only=True)
    t_max: float = dataclasses.field(default=1.0, kw_only=True)

    def alpha(self, t):
        return jnp.interp(t, jnp.linspace(0, 1, len(self.betas)), self.betas)

    sigma = log_snr = time = alpha


def test_schedules_with_arrays(monkeypatch):
    schedule = Table(jnp.asarray(np.random.default_rng(0).uniform(size=5), jnp.float32))
    with pytest.raises(InputError, match="a Table, which could not be read again"):
        entries.schedule_entry(schedule)
    monkeypatch.setattr(schedules, "Table", Table, raising=False)  # as if it were the package's
    entry = json.loads(json.dumps(entries.schedule_entry(schedule)))
    read = entries.read_schedule(entry)
    assert isinstance(read, Table) and read.betas.dtype == schedule.betas.dtype
    assert np.array_equal(read.betas, schedule.betas)


class ScaledPrediction(priors.Prediction):
    """A prediction with a number of its own, as networks with preconditioning have it."""

    scale: float

    def denoised(self, output, x, level):
        return self.scale * output

    def target(self, clean, noise, level):
        return clean / self.scale


def test_predictions(monkeypatch):
    for prediction, name in (
        (priors.VPrediction(), "v"), (priors.EpsPrediction(), "eps"), (priors.X0Prediction(), "x0"),
    ):  # fmt: skip
        assert entries.prediction_entry(prediction) == name
        assert entries.read_prediction(name) == prediction
    monkeypatch.setattr(priors, "ScaledPrediction", ScaledPrediction, raising=False)
    entry = entries.prediction_entry(ScaledPrediction(0.5))
    assert entry == {"name": "scaled", "scale": 0.5}
    assert entries.read_prediction(entry) == ScaledPrediction(0.5)


def test_denoising_errors():
    error = priors.DenoisingError(jnp.array([-10.0, 0.3, 2.0]), jnp.array([0.1, 0.2, 0.7]))
    entry = json.loads(json.dumps(entries.error_entry(error)))
    assert list(entry)[0] == "-10" and entries.error_entry(None) is None
    read = entries.read_error(entry)
    assert np.array_equal(read.log_snr, error.log_snr) and read.log_snr.dtype == jnp.float32
    assert np.array_equal(read.values, error.values)
    assert entries.read_error(None) is None


@pytest.mark.parametrize(
    "entry", [{"name": "Cosine", "t_max": "late"}, {"name": "Cosine", "t_max": [["a"]]}]
)
def test_words_for_numbers(entry):
    with pytest.raises(ValueError):
        entries.read_schedule(entry)
