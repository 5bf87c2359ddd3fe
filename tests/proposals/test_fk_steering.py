"""FK-steering's potentials against their definition, and what it refuses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import SMC, InputError, ParticleGibbs, kernels, priors, proposals, schedules, twists
from smcdiff.problem import ReverseModel, read
from smcdiff.sampler._steered_diffusion import SteeredDiffusion

PRIOR = priors.Gaussian(jnp.zeros(2), 1.0, schedule=schedules.Cosine())
STEPS, EVERY = 7, 3


def _model(y=None):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)


def _rewards_and_weights(potential):
    """Rewards at the levels of one path, and the log weights of a particle that takes it."""
    problem = read(_model, (), {"y": jnp.array([1.0, -0.5])})
    levels = schedules.UniformLogSNR()(PRIOR.schedule, STEPS)
    model = ReverseModel(problem, kernels.DDIM(), levels)
    steered = SteeredDiffusion(proposals.FKSteering(potential=potential, every=EVERY), model, None)
    twist, rewards, weights = twists.Likelihood(), [], []

    @jax.jit
    def step(t, particle):
        moved = steered.step(jax.random.fold_in(jax.random.key(1), t), t, particle)
        reward = twist.evaluate(model, None, moved.x, model.level(t - 1)).log_twist
        return moved, steered.log_potential(t, particle, moved), reward

    particle = jax.jit(steered.init)(jax.random.key(0))
    for t in range(1, STEPS + 2):
        particle, weight, reward = step(jnp.int32(t), particle)
        weights.append(float(weight))
        if t <= STEPS:
            rewards.append(float(reward))
    return np.array(rewards), np.array(weights), float(model.log_likelihood(particle.x))


@pytest.mark.parametrize(
    ("potential", "of_rewards"),
    [
        (proposals.Difference(), lambda r: [r[0], *np.diff(r)]),
        (proposals.Max(), lambda r: list(itertools.accumulate(r, max))),
        (proposals.Sum(), lambda r: list(itertools.accumulate(r))),
    ],
    ids=["difference", "max", "sum"],
)
def test_potentials(potential, of_rewards):
    """At every third level, one between potentials; the last divides by all others."""
    rewards, weights, likelihood = _rewards_and_weights(potential)
    wanted = np.zeros(STEPS + 1)
    wanted[:STEPS:EVERY] = of_rewards(rewards[::EVERY])
    wanted[-1] = likelihood - wanted.sum()
    np.testing.assert_allclose(weights, wanted, rtol=1e-4, atol=1e-4)


def test_a_steered_guide_keeps_its_own_detail():
    """Draws of a proposal that carries something from its evaluation."""
    given = priors.Gaussian(jnp.array([0.8, -0.4]), 0.2, schedule=PRIOR.schedule)
    guide = proposals.ClassifierFree(given, twist=twists.Likelihood())
    smc = SMC(
        _model, proposals.FKSteering(guide, proposals.Difference(), every=1),
        num_particles=64, num_steps=10, progress_bar=False,
    )  # fmt: skip
    plain = SMC(_model, guide, num_particles=64, num_steps=10, progress_bar=False)
    data = {"y": jnp.array([1.0, -0.5])}
    steered, guided = (sampler.run(jax.random.key(0), **data) for sampler in (smc, plain))
    np.testing.assert_allclose(steered.samples["x"], guided.samples["x"], rtol=1e-5)
    np.testing.assert_allclose(steered.log_evidence, guided.log_evidence, rtol=1e-5)


def _unknown_noise(y=None):
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(x, sigma).to_event(1), obs=y)


def test_bad_input(unchecked):
    with pytest.raises(InputError, match="the potential is 'max'"):
        proposals.FKSteering(potential="max")
    with pytest.raises(InputError, match="every is 0"):
        proposals.FKSteering(every=0)
    y, key = jnp.ones(2), jax.random.key(0)
    twice = proposals.FKSteering(proposals.FKSteering())
    with pytest.raises(InputError, match="weighs its particles by their path"):
        SMC(_model, twice, num_particles=4, num_steps=4).run(key, y=y)
    moved = proposals.Rejuvenated(proposals.FKSteering())
    with pytest.raises(InputError, match="Rejuvenated: FKSteering weighs its particles by their"):
        SMC(_model, moved, num_particles=4, num_steps=4).run(key, y=y)
    steered = proposals.FKSteering(proposals.Rejuvenated())
    with pytest.raises(InputError, match="weights of Rejuvenated go by its own twist"):
        SMC(_model, steered, num_particles=4, num_steps=4).run(key, y=y)
    with pytest.raises(InputError, match="are unknown"):
        SMC(_unknown_noise, proposals.FKSteering(), num_particles=4, num_steps=4).run(key, y=y)
    gibbs = ParticleGibbs(
        _model, proposals.FKSteering(),
        num_particles=4, num_steps=4, num_warmup=0, num_samples=1,
    )  # fmt: skip
    with pytest.raises(InputError, match="FKSteering has no law"):
        gibbs.run(key, y=y)
