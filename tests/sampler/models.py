"""A mixture seen through a matrix: the problem of this folder's tests."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from smcdiff import SMC, operators, priors
from smcdiff.moves._conjugate import conjugate
from smcdiff.sampler import _chains as chains

PRIOR = priors.GaussianMixture(
    jnp.array([0.3, 0.7]), jnp.array([[-2.0, 0.0, 1.0], [3.0, 1.0, 0.0]]), 0.5
)
MATRIX = jnp.array([[1.0, 0.5, -0.3], [0.0, 1.0, 0.8]])
Y, NOISE = jnp.array([0.7, -0.6]), 0.4


def model(prior, operator, noise, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(operator(x), noise).to_event(), obs=y)


def sampler(proposal=None, **options):
    options = {"num_particles": 128, "num_steps": 10, "progress_bar": False, **options}
    return SMC(model, proposal, **options)


def run(smc, key=0, prior=PRIOR, noise=NOISE, y=Y, **options):
    return smc.run(jax.random.key(key), prior, operators.Dense(MATRIX), noise, y=y, **options)


def step_of(model, proposal, num_particles, *args, **kwargs):
    """The compiled step of the filter's model, of some particles."""
    smc = SMC(model, proposal, num_particles=num_particles, num_steps=4, progress_bar=False)
    sampler = smc._sampler
    problem = sampler.read(args, kwargs)
    reverse = sampler.assemble(problem, proposal)
    keys = jax.random.split(jax.random.key(0), num_particles)
    axes = (None,) * len(jax.tree.leaves(reverse))
    made, own = chains.prepare(
        keys[:1], proposal, reverse, axes, sampler.move(problem), conjugate(problem)
    )
    leaves, structure = jax.tree.flatten(made)
    pairs = zip(leaves, structure.flatten_up_to(own), strict=True)
    made = structure.unflatten([a if axis is None else a[0] for a, axis in pairs])

    @jax.jit
    def steps(keys):
        def step(t, particles):
            learned = hasattr(made, "statistics")
            told = jax.vmap(made.statistics)(particles) if learned else None
            means = (jax.tree.map(lambda a: a.mean(0), told),) if learned else ()
            return jax.vmap(lambda key, p: made.step(key, t, p, *means))(keys, particles)

        return jax.lax.fori_loop(1, 4, step, jax.vmap(made.init)(keys))

    return steps.lower(keys).compile()
