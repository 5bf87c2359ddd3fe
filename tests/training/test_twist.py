"""Twists: one learns p(y given x_t), another steers by a black box, and bad input is refused."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from safetensors.numpy import load_file

from smcdiff import SMC, InputError, load_twist, priors, proposals, twists
from smcdiff.diagnostics.contrast import contrastive_score
from smcdiff.training import TrainConfig, train_twist
from tests.twists.test_learned import PRIOR

CONFIG = TrainConfig(
    steps=600, batch_size=64, channels=(16,), learning_rate=1e-2, ema=0.99, checkpoint_every=600
)
BRIEF = dataclasses.replace(CONFIG, steps=4, checkpoint_every=2)
GAUSSIAN = priors.Gaussian(jnp.array([1.0, -1.0]), jnp.array([[1.5, 0.4], [0.4, 1.0]]))
ROW = jnp.array([[1.0, 0.5]])


def linear(y=None):
    x = numpyro.sample("x", GAUSSIAN)
    numpyro.sample("y", dist.Normal(ROW @ x, 0.5).to_event(1), obs=y)


def _radius(x):
    x = np.asarray(x)
    return np.round(2.0 * np.hypot(x[..., 0], x[..., 1])).astype(np.float32) / 2.0


def black_box(y=None):
    """A simulator in NumPy, of which JAX sees nothing: the radius, rounded."""
    x = numpyro.sample("x", PRIOR)
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    radius = jax.pure_callback(
        lambda x: _radius(np.asarray(x)), shape, x, vmap_method="expand_dims"
    )
    numpyro.sample("y", dist.StudentT(4.0, radius, 0.1), obs=y)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "linear"
    return train_twist(linear, folder, CONFIG, command="pytest")


@pytest.mark.slow
def test_learns_the_likelihood_of_noisy_events(folder):
    """`twists.MomentMatched` is p(y given x_t) itself, for a Gaussian prior."""
    found, exact = (
        contrastive_score(jax.random.key(0), linear, twist, num_paths=64, num_steps=6)
        for twist in (dataclasses.replace(load_twist(folder), floor=0.0), twists.MomentMatched())
    )
    assert exact.score[-1] > 0.5
    allowed = np.maximum(0.1 * exact.score, exact.standard_error)
    assert np.all(found.score > exact.score - allowed)


@pytest.mark.slow
def test_the_card_says_how_well(folder):
    contrast = json.loads((folder / "config.json").read_text())["contrast"]
    values = [contrast[level] for level in sorted(contrast, key=float)]
    # log(sd of y / noise), 0.5 log(2.15 / 0.25) = 1.08, is the most that there is to know.
    assert values[0] < 0.4 and 0.7 < values[-1] < 1.3
    card = (folder / "card.md").read_text()
    assert f"| 4 | {contrast['4']:.3f} |" in card and "pytest" in card
    # Nothing was said of the data, and it was quick.
    assert "Licence" not in card and "\n\n\n" not in card
    assert re.search(r"^\(\d+ seconds\)$", card, re.MULTILINE)


@pytest.mark.slow
def test_steers_by_a_black_box(tmp_path):
    """A lopsided posterior in two dimensions: evidence by quadrature, and more effective draws."""
    twist = load_twist(train_twist(black_box, tmp_path / "box", CONFIG))
    axis, y = np.linspace(-7.0, 7.0, 1401), 3.0
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    likelihood = np.exp(np.asarray(dist.StudentT(4.0, _radius(x), 0.1).log_prob(y), float))
    density = np.exp(np.asarray(PRIOR.log_prob(jnp.asarray(x)), float))
    truth = np.log(np.sum(density * likelihood) * (axis[1] - axis[0]) ** 2)

    def run(proposal):
        smc = SMC(black_box, proposal, num_particles=64, num_steps=12, num_chains=64,
                  progress_bar=False)  # fmt: skip
        return smc.run(jax.random.key(0), y=jnp.asarray(y))

    learned, plain = run(proposals.Twisted(twist=twist)), run(proposals.Bootstrap())
    ratios = np.exp(learned.log_evidence - truth)
    error = ratios.std(ddof=1) / 8
    assert abs(ratios.mean() - 1.0) < 3 * error < 0.1
    assert learned.ess[:, -1].mean() > 2.0 * plain.ess[:, -1].mean()
    assert learned.log_evidence.std() < 0.5 * plain.log_evidence.std()


@pytest.mark.slow
def test_resumed_run_ends_with_the_same_weights(tmp_path, killed):
    whole = load_file(train_twist(linear, tmp_path / "whole", BRIEF) / "model.safetensors")
    killed(train_twist, linear, tmp_path / "twist", BRIEF)
    resumed = load_file(train_twist(linear, tmp_path / "twist", BRIEF) / "model.safetensors")
    assert all(np.array_equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.slow
def test_images(tmp_path):
    """Counts on the pixels, from images that are given, sorted: some of all stay with the twist."""

    def counts(y=None):
        x = numpyro.sample("x", priors.Gaussian(jnp.zeros((4, 4, 1)), 0.2))
        numpyro.sample("y", dist.Poisson(jnp.exp(x[..., 0])).to_event(2), obs=y)

    data = tmp_path / "images.npy"
    np.save(data, np.sort(np.random.default_rng(0).integers(0, 255, (800, 4, 4), np.uint8), axis=0))
    config = dataclasses.replace(BRIEF, batch_size=8, patch=1)
    twist = load_twist(train_twist(counts, tmp_path / "out", config, data=data))
    assert twist.network.events.shape == (256, 4, 4, 1)
    assert abs(twist.network.events.mean()) < 0.05
    smc = SMC(counts, proposals.Bootstrap(twist=twist), num_particles=8, num_steps=4,
              progress_bar=False)  # fmt: skip
    posterior = smc.run(jax.random.key(0), y=jnp.ones((4, 4), int))
    assert np.isfinite(posterior.log_evidence).all()


def test_bad_input(tmp_path):
    def unseen():
        numpyro.factor("y", -jnp.sum(numpyro.sample("x", GAUSSIAN) ** 2))

    def constant(y=None):
        numpyro.sample("y", dist.Delta(0.0 * numpyro.sample("x", GAUSSIAN)).to_event(1), obs=y)

    def infinite(y=None):
        x = numpyro.sample("x", GAUSSIAN)
        numpyro.sample("y", dist.Normal(jnp.log(-jnp.abs(x)), 1.0).to_event(1), obs=y)

    for model, message in (
        (unseen, "one of each, the other being simulated"),
        (constant, "site 'y' is the same for every event"),
        (infinite, "site 'y' draws values that are not finite"),
    ):
        with pytest.raises(InputError, match=message):
            train_twist(model, tmp_path / "out", BRIEF)
    with pytest.raises(InputError, match="weighting is not an option of a twist"):
        train_twist(linear, tmp_path / "out", dataclasses.replace(BRIEF, weighting="min-snr"))
    with pytest.raises(InputError, match=r"images of shape \(4, 4, 1\), but site 'x' has \(2,\)"):
        np.save(
            tmp_path / "images.npy", np.random.default_rng(0).integers(0, 9, (9, 4, 4), np.uint8)
        )
        train_twist(linear, tmp_path / "out", BRIEF, data=tmp_path / "images.npy")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="of kind 'prior', not 'twist'"):
        load_twist("models/mnist")
