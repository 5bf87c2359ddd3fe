"""Somebody else's samplers on the same models: NumPyro's NUTS, BlackJAX's tempered SMC, a grid.

The priors are analytic, so that the joint density is known. Means, standard deviations and the log
evidence agree with ours within 3 standard errors: ours from the spread of 16 independent chains,
those of NUTS from its effective draws, BlackJAX's from 8 independent runs, and the grid's are none.
"""

import functools

import blackjax
import blackjax.smc.resampling
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import logsumexp
from numpyro.diagnostics import summary
from numpyro.infer import MCMC, NUTS

from smcdiff import SMC, priors

GAUSSIAN = priors.Gaussian(jnp.array([0.3, -0.2]), jnp.array([1.0, 0.5]))
LOPSIDED = priors.GaussianMixture(jnp.array([0.8, 0.2]), jnp.array([[-1.0, 0.0], [1.5, 1.0]]), 0.4)
ONE = priors.Gaussian(jnp.array([0.5]), 1.0)


def unknown_noise(y=None):
    x = numpyro.sample("x", ONE)
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(jnp.broadcast_to(x, (5,)), noise).to_event(1), obs=y)


def lopsided(y=None):
    x = numpyro.sample("x", LOPSIDED)
    numpyro.sample("y", dist.Normal(x.sum(), 0.6), obs=y)


def nonlinear(y=None):
    x = numpyro.sample("x", GAUSSIAN)
    mean = jnp.stack([jnp.exp(0.5 * x[0]), x[0] * x[1]])
    numpyro.sample("y", dist.Normal(mean, 0.5).to_event(1), obs=y)


# For each: model, data, and the box of two unconstrained numbers that holds the posterior.
PROBLEMS = {
    "unknown noise": (unknown_noise, jnp.array([1.4, 0.6, 1.9, 0.2, 1.1]), ((-3, 4), (-4, 3))),
    "lopsided": (lopsided, jnp.array(0.8), ((-5, 5), (-5, 5))),
    "nonlinear": (nonlinear, jnp.array([1.5, -0.6]), ((-5, 5), (-5, 5))),
}
# The joint program of x and the noise takes ten seconds to compile.
NAMES = [pytest.param("unknown noise", marks=pytest.mark.slow), "lopsided", "nonlinear"]


def log_parts(name, u):
    """Log prior density in unconstrained space, and log likelihood, of two numbers u."""
    model, y, _ = PROBLEMS[name]
    sites, jacobian = constrained(name, u)
    with numpyro.handlers.substitute(data=sites):
        trace = numpyro.handlers.trace(model).get_trace(y=y)
    prior = sum(jnp.sum(trace[n]["fn"].log_prob(trace[n]["value"])) for n in sites) + jacobian
    return prior, jnp.sum(trace["y"]["fn"].log_prob(trace["y"]["value"]))


def constrained(name, u):
    """The sites of two unconstrained numbers, and the log Jacobian."""
    if name == "unknown noise":
        return {"x": u[:1], "noise": jnp.exp(u[1])}, u[1]
    return {"x": u}, 0.0


def flat(samples):
    """(..., 2) the two numbers of interest."""
    x = np.asarray(samples["x"], float)
    return np.concatenate([x, np.asarray(samples["noise"], float)[..., None]], -1) if (
        "noise" in samples
    ) else x  # fmt: skip


def average(values, weights):
    """Means and standard deviations, (4,)."""
    mean = weights @ values
    return np.concatenate([mean, np.sqrt(weights @ (values - mean) ** 2)])


def of_runs(numbers):
    """Mean over independent runs, and its standard error."""
    return np.mean(numbers, axis=0), np.std(numbers, axis=0, ddof=1) / len(numbers) ** 0.5


@functools.cache
def ours(name):
    """Means and standard deviations with their standard errors; Z_hat of each chain, log."""
    model, y, _ = PROBLEMS[name]
    smc = SMC(model, num_particles=500, num_steps=25, num_chains=16, progress_bar=False)
    posterior = smc.run(jax.random.key(0), y=y)
    weights, values = np.exp(posterior.log_weights), flat(posterior.samples)
    found = [average(v, w / w.sum()) for v, w in zip(values, weights.astype(float), strict=True)]
    return *of_runs(found), posterior.log_evidence


def agree(mine, my_error, theirs, their_error):
    z = (mine - theirs) / np.hypot(my_error, their_error)
    assert np.all(np.abs(z) < 3.0), (mine, theirs, z)


@pytest.mark.parametrize("name", NAMES)
def test_grid(name):
    axes = [np.linspace(*bounds, 401) for bounds in PROBLEMS[name][2]]
    points = jnp.asarray(np.stack(np.meshgrid(*axes), -1).reshape(-1, 2), jnp.float32)
    prior, likelihood = jax.vmap(lambda u: log_parts(name, u))(points)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    joint = np.asarray(prior + likelihood, float)
    weights = np.exp(joint - joint.max())
    log_evidence = np.log(weights.sum() * cell) + joint.max()
    sites, _ = jax.vmap(lambda u: constrained(name, u))(points)
    mean, error, log_evidences = ours(name)
    agree(mean, error, average(flat(sites), weights / weights.sum()), 0.0)
    agree(*of_runs(np.exp(log_evidences - log_evidence)), 1.0, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_nuts(name):
    model, y, _ = PROBLEMS[name]
    mcmc = MCMC(NUTS(model), num_warmup=500, num_samples=2000, num_chains=4,
                chain_method="vectorized", progress_bar=False)  # fmt: skip
    mcmc.run(jax.random.key(1), y=y)
    values = flat(mcmc.get_samples(group_by_chain=True))
    mean = values.mean((0, 1))
    squares = (values - mean) ** 2
    numbers = summary({"m": values, "s": squares})
    assert max(numbers["m"]["r_hat"]) < 1.02
    deviation = np.sqrt(squares.mean((0, 1)))
    errors = [numbers[n]["std"] / np.sqrt(numbers[n]["n_eff"]) for n in ("m", "s")]
    theirs = np.concatenate([mean, deviation])
    agree(*ours(name)[:2], theirs, np.concatenate([errors[0], errors[1] / (2.0 * deviation)]))


@pytest.mark.parametrize("name", NAMES)
def test_tempered_smc(name):
    smc = blackjax.adaptive_tempered_smc(
        lambda u: log_parts(name, u)[0], lambda u: log_parts(name, u)[1],
        blackjax.hmc.build_kernel(), blackjax.hmc.init,
        blackjax.smc.extend_params({
            "step_size": jnp.asarray(0.3), "inverse_mass_matrix": jnp.ones(2),
            "num_integration_steps": 5,
        }),
        blackjax.smc.resampling.systematic, 0.7, num_mcmc_steps=5,
    )  # fmt: skip

    @jax.jit
    @jax.vmap
    def run(key):
        key_start, key_run = jax.random.split(key)
        start = jax.vmap(lambda k: start_of(name, k))(jax.random.split(key_start, 1000))

        def step(carry):
            state, log_evidence, key = carry
            key, own = jax.random.split(key)
            state, info = smc.step(own, state)
            return state, log_evidence + info.log_likelihood_increment, key

        carry = smc.init(start), jnp.zeros(()), key_run
        state, log_evidence, _ = jax.lax.while_loop(
            lambda carry: carry[0].tempering_param < 1.0, step, carry
        )
        return state.particles, state.weights, log_evidence

    particles, weights, log_evidences = run(jax.random.split(jax.random.key(2), 8))
    sites, _ = jax.vmap(jax.vmap(lambda u: constrained(name, u)))(particles)
    found = [average(*pair) for pair in zip(flat(sites), np.asarray(weights, float), strict=True)]
    mean, error, own_evidences = ours(name)
    agree(mean, error, *of_runs(found))
    reference = float(logsumexp(log_evidences)) - np.log(8)
    ratios = of_runs(np.exp(own_evidences - reference))
    agree(*ratios, *of_runs(np.exp(np.asarray(log_evidences) - reference)))


def start_of(name, key):
    """A draw of the prior, unconstrained."""
    model, _, _ = PROBLEMS[name]
    trace = numpyro.handlers.trace(numpyro.handlers.seed(model, key)).get_trace()
    if name == "unknown noise":
        return jnp.append(trace["x"]["value"], jnp.log(trace["noise"]["value"]))
    return trace["x"]["value"]
