"""A twist that a network gives: consistent whatever it learned, and no derivative but its own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import SMC, InputError, kernels, priors, proposals, schedules, twists
from smcdiff.problem import ReverseModel, read
from tests.store.priors import twist_network

PRIOR = priors.GaussianMixture(
    jnp.array([0.3, 0.7]), jnp.array([[-1.5, 0.0], [1.0, 1.0]]), jnp.array([0.2, 0.5])
)
SIGNS = jnp.array([True, False, True])
ROWS = jnp.array([[1.0, 0.0], [0.5, -1.0], [1.0, 2.0]])


def signs(y=None):
    """Three signs, each of them wrong with probability 0.1: no gradient anywhere."""
    x = numpyro.sample("x", PRIOR)
    probability = jnp.where(ROWS @ x > 0.5, 0.9, 0.1)
    numpyro.sample("y", dist.Bernoulli(probability).to_event(1), obs=y)


def _log_evidence():
    """By quadrature."""
    axis = np.linspace(-6.0, 6.0, 601)
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    right = (x @ np.asarray(ROWS).T > 0.5) == np.asarray(SIGNS)
    likelihood = np.prod(np.where(right, 0.9, 0.1), axis=1)
    density = np.exp(np.asarray(PRIOR.log_prob(jnp.asarray(x)), float))
    return np.log(np.sum(density * likelihood) * (axis[1] - axis[0]) ** 2)


@pytest.mark.parametrize(
    "proposal", [pytest.param(proposals.Bootstrap, marks=pytest.mark.slow), proposals.Twisted]
)
def test_consistent_whatever_it_learned(proposal):
    """Random weights, three times too large: it is as sure as it can be, and wrong."""
    twist = twists.Learned(twist_network((2,), (3,), 3.0))
    smc = SMC(signs, proposal(twist=twist), num_particles=256, num_steps=12, num_chains=64,
              progress_bar=False)  # fmt: skip
    ratios = np.exp(smc.run(jax.random.key(0), y=SIGNS).log_evidence - _log_evidence())
    error = ratios.std(ddof=1) / 8
    assert abs(ratios.mean() - 1.0) < 3 * error < 0.15


def _reverse_model(model, *args):
    problem = read(model, args)
    levels = schedules.UniformLogSNR()(problem.prior.schedule, 6)
    return ReverseModel(problem, kernels.DDIM(), levels)


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_bounded_and_of_the_size_of_the_likelihood(floor):
    """Far away from all training, too; and its mean over the prior is that of the likelihood."""
    events = PRIOR.sample(jax.random.key(1), (2000,))
    network = dataclasses.replace(twist_network((2,), (3,), 2.0), events=events)
    model, twist = _reverse_model(signs, SIGNS), twists.Learned(network, floor=floor)

    @jax.jit
    def values(points, n):
        prepared = twist.prepare(jax.random.key(0), model)
        found = jax.vmap(lambda x: twist.evaluate(model, prepared, x, model.level(n)))(points)
        return found.log_twist, jax.vmap(twist.room)(found)

    scales = jnp.logspace(-1.0, 4.0, 200)[:, None]
    log_twists, rooms = values(scales * jax.random.normal(jax.random.key(2), (200, 2)), 2)
    assert np.ptp(log_twists) > 1.0 and np.all((rooms >= 0.0) & (rooms <= 24.0))
    np.testing.assert_allclose(log_twists + rooms, log_twists[0] + rooms[0], rtol=1e-4)
    least = np.log(floor) if floor else -24.0
    assert np.all(log_twists > _log_evidence() + least - 0.2)
    for n in (0, 3):
        level = model.level(n)
        noise = jax.random.normal(jax.random.key(3), events.shape)
        draws = level.alpha * PRIOR.sample(jax.random.key(4), (2000,)) + level.sigma * noise
        mean = np.log(np.mean(np.exp(values(draws, n)[0])))
        # Two times 2,000 draws, and 1,024 for the likelihood.
        assert abs(mean - np.log1p(floor) - _log_evidence()) < 0.2


def test_needs_no_derivative():
    """Of neither denoiser nor likelihood, which are host callbacks."""
    truth = priors.Gaussian(jnp.zeros(2), 1.0, schedule=schedules.Cosine())

    def on_host(function):
        shape = jax.ShapeDtypeStruct((2,), jnp.float32)
        return lambda x: jax.pure_callback(function, shape, x, vmap_method="expand_dims")

    half = on_host(lambda x: np.float32(0.5) * np.asarray(x))
    prior = priors.DiffusionPrior(lambda x, t: half(x), truth.schedule, (2,), probe=False)

    def model(y):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(on_host(np.round)(x), 0.5).to_event(1), obs=y)

    twist = twists.Learned(twist_network((2,), (2,)))
    smc = SMC(model, proposals.Twisted(twist=twist), num_particles=8, num_steps=4,
              progress_bar=False)  # fmt: skip
    assert np.isfinite(smc.run(jax.random.key(0), jnp.ones(2)).log_evidence).all()


def test_bad_input(unchecked):
    def two(y, z):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)
        numpyro.sample("z", dist.Normal(x, 1.0).to_event(1), obs=z)

    with pytest.raises(InputError, match="load_twist"):
        twists.Learned("folder")
    with pytest.raises(InputError, match="floor is -1.0"):
        twists.Learned(twist_network((2,), (2,)), floor=-1.0)
    learned = twists.Learned(twist_network((2,), (2,)))
    with pytest.raises(InputError, match=r"sites \['y', 'z'\]; the learned twist was"):
        learned.check(_reverse_model(two, jnp.ones(2), jnp.ones(2)))
    smc = SMC(signs, proposals.Twisted(twist=learned), num_particles=4, num_steps=4)
    with pytest.raises(InputError, match=r"Twisted: the observation has shape \(3,\), but"):
        smc.run(jax.random.key(0), y=SIGNS)
    with pytest.raises(InputError, match=r"events of shape \(3,\), and site 'x' has \(2,\)"):
        twists.Learned(twist_network((3,), (3,))).check(_reverse_model(signs, SIGNS))
