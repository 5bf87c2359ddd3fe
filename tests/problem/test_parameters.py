"""Unknown parameters: their prior is NumPyro's, and what cannot be inferred is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.distributions.distribution import Distribution
from numpyro.infer.util import log_density, transform_fn

from smcdiff import InputError, operators
from smcdiff.priors import Gaussian
from smcdiff.problem import read
from tests.problem.models import PRIOR, A, X, Y, assert_residual_matches


def hierarchical(y=None):
    x = numpyro.sample("x", PRIOR)
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("rows", 4):
        noise = numpyro.sample("noise", dist.Uniform(0.0, scale))  # a support that depends on it
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    numpyro.deterministic("largest", jnp.max(weights))
    numpyro.sample("y", dist.Normal(A @ (weights * x), noise).to_event(1), obs=y)


def test_prior_is_that_of_numpyro():
    """With the Jacobians: against NumPyro's own density, and its own transforms."""
    problem = read(hierarchical, (), {"y": Y})
    assert dict(problem.parameters.shapes) == {"scale": (), "noise": (4,), "weights": (2,)}
    problem = problem.at(jnp.linspace(-1.0, 1.0, 7))
    found = problem.trace(X)
    values = {name: found[name]["value"] for name in problem.parameters.names}
    joint, _ = log_density(hierarchical, (), {"y": Y}, {**values, "x": X})
    parts, jacobians = problem.parameters.by_site, 0.0
    for name, value in values.items():
        transform = dist.biject_to(found[name]["fn"].support)
        own = transform_fn({name: transform}, {name: parts[name]})[name]
        np.testing.assert_allclose(value, own, rtol=1e-6)
        jacobians += jnp.sum(transform.log_abs_det_jacobian(parts[name], value))
    expected = joint - PRIOR.log_prob(X) - problem.log_likelihood(X) + jacobians
    np.testing.assert_allclose(problem.log_prior(), expected, rtol=1e-5)


def test_draws_are_those_of_the_model():
    problem = read(hierarchical, (), {"y": Y})
    keys = jax.random.split(jax.random.key(0), 2000)
    draws = jax.vmap(lambda key: problem.at(problem.draw_parameters(key)).trace()["noise"]["value"])
    # Uniform below a half normal: its mean is half of sqrt(2 / pi); sd of 8,000 values about 0.4.
    np.testing.assert_allclose(np.mean(draws(keys)), 0.5 * np.sqrt(2 / np.pi), atol=0.03)


def test_what_is_told_of_a_particle():
    problem = read(hierarchical, (), {"y": Y}).at(jnp.zeros(7))
    computed, _ = problem.describe(X)
    assert list(computed) == ["scale", "noise", "weights", "largest"]
    np.testing.assert_allclose(computed["noise"], np.full(4, 0.5))


def test_linear_given_the_parameters():
    def model(width, y=None):
        x = numpyro.sample("x", PRIOR)
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        gain = numpyro.sample("gain", dist.Normal(0.0, 1.0)) if width else 1.0
        numpyro.sample("y", dist.Normal(gain * operator(x), noise).to_event(1), obs=y)

    operator = operators.Dense(A)
    fixed, moving = read(model, (0,), {"y": Y}), read(model, (1,), {"y": Y})
    # The operator is kept where it is the same for all values, and the noise known to be equal.
    assert fixed.recognised is not None and fixed.equal_noise
    assert moving.recognised is None and moving.is_linear
    for problem in (fixed, moving):
        assert_residual_matches(problem)
        other = problem.at(problem.draw_parameters(jax.random.key(5)))
        assert_residual_matches(other)


def refuses(match, body, prior=None, y=Y[:3]):
    def model(y=None):
        x = numpyro.sample("x", PRIOR)
        a = numpyro.sample("a", prior) if isinstance(prior, Distribution) else None
        numpyro.sample("y", dist.Normal(body(x, a), 0.5).to_event(1), obs=y)

    with pytest.raises(InputError, match=match) as caught:
        read(model, (), {"y": y})
    assert "\n" not in str(caught.value)


def test_refusals():
    refuses("'a' is latent and discrete.*dist.MixtureSameFamily", lambda x, a: a * x,
            dist.Bernoulli(0.5))  # fmt: skip
    refuses("'a' has an improper prior.*give it a proper one", lambda x, a: a * x,
            dist.ImproperUniform(dist.constraints.real, (), ()))  # fmt: skip
    refuses("nothing that is observed depends on site 'a'", lambda x, a: x, dist.Normal())
    refuses("'a': a masked or scaled prior", lambda x, a: a * x, dist.Normal().mask(False))


def test_prior_that_depends_on_x():
    def body(x, a):
        return x + numpyro.sample("z", dist.Normal(x, 1.0).to_event(1))

    refuses(r"'z' is latent, and its distribution depends on 'x'; pass its data", body)


def test_scaled_prior():
    def body(x, a):
        with handlers.scale(scale=2.0):
            return x * numpyro.sample("z", dist.Normal())

    refuses("'z': a masked or scaled prior", body)


def test_diffusion_prior_that_depends_on_a_parameter():
    def model(y=None):
        variance = numpyro.sample("variance", dist.HalfNormal(1.0))
        x = numpyro.sample("x", Gaussian(jnp.zeros(3), variance))
        numpyro.sample("y", dist.Normal(variance * x, 0.5).to_event(1), obs=y)

    with pytest.raises(InputError, match=r"prior of site 'x' depends on \['variance'\]"):
        read(model, (), {"y": Y[:3]})


def test_exact_observation():
    def model(y=None):
        x = numpyro.sample("x", PRIOR)
        gain = numpyro.sample("gain", dist.Normal(1.0, 1.0))
        numpyro.sample("y", dist.Delta(gain * x).to_event(1), obs=y)

    with pytest.raises(InputError, match=r"'y' is observed without noise .*\['gain'\] are unknown"):
        read(model, (), {"y": Y[:3]})
