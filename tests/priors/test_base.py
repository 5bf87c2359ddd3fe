"""A prior of a user's own: what it need define, and what it has then."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import kernels, priors, schedules, static
from smcdiff.errors import InputError
from tests.proposals.models import PRIORS, isotropic
from tests.sampler.models import PRIOR


class Shrunk(priors.Prior):
    """A centred Gaussian, by its denoiser alone."""

    variance_of_data: jax.Array
    name: str = static(default="mine")

    def __init__(self, variance):
        self.variance_of_data = jnp.asarray(variance)
        self.name = "mine"
        super().__init__(schedules.Cosine(), (3,))

    def posterior_mean(self, x, t):
        level, variance = self.schedule.level(t), self.variance_of_data
        return level.alpha * variance / (level.alpha**2 * variance + level.sigma**2) * x


def test_fields_are_children_or_structure():
    prior = Shrunk(0.5)
    leaves, structure = jax.tree.flatten(prior)
    assert any(leaf is prior.variance_of_data for leaf in leaves)
    again = jax.tree.unflatten(structure, leaves)
    assert again.name == "mine" and again.event_shape == (3,)
    x = jnp.ones(3)
    np.testing.assert_allclose(
        jax.jit(lambda p: p.denoise(x, 0.3))(prior), prior.denoise(x, 0.3), rtol=1e-6
    )


def test_draws_and_density():
    """Ancestral draws with 100 steps shrink the variance by 2 to 4 %; the flow is exact to 1e-3."""
    prior, exact = Shrunk(0.5), priors.Gaussian(np.zeros(3), 0.5, schedules.Cosine())
    draws = jax.jit(lambda key: prior.sample(key, (5000,)))(jax.random.key(0))
    np.testing.assert_allclose(np.var(draws, axis=0), 0.5, rtol=0.12)
    x = np.float32([0.3, -0.7, 1.0])
    np.testing.assert_allclose(jax.jit(prior.log_prob)(x), exact.log_prob(x), atol=0.01)


def test_what_it_cannot_do():
    prior = Shrunk(0.5)
    with pytest.raises(InputError, match="this Shrunk takes no condition"):
        prior.given(3)
    with pytest.raises(NotImplementedError, match="Shrunk knows no exact reverse kernel"):
        prior.reverse(jnp.zeros(3), prior.schedule.noisiest, prior.schedule.level(0.1))


def test_what_is_forgotten_is_said_at_construction():
    class WithoutMean(priors.Prior):
        def __init__(self):
            super().__init__(schedules.Cosine(), (3,))

    class WithoutAnnotation(Shrunk):
        def __init__(self):
            self.shift = 1.0
            super().__init__(0.5)

    with pytest.raises(InputError, match="WithoutMean must define posterior_mean"):
        WithoutMean()
    with pytest.raises(InputError, match=r"\['shift'\] would be lost .*`shift: jax.Array`"):
        WithoutAnnotation()


def test_reverse_path_ends_in_a_draw_of_the_prior():
    """With the exact kernel, from x_T to x_0."""
    covariance = jnp.array([[1.0, 0.8], [0.8, 2.0]])
    prior = priors.Gaussian(jnp.array([1.0, -1.0]), covariance)
    levels = schedules.UniformLogSNR()(prior.schedule, 6)
    path = jax.jit(lambda key: prior.reverse_path(key, kernels.Exact(), levels))
    paths = jax.vmap(path)(jax.random.split(jax.random.key(0), 4000))
    assert paths.shape == (4000, 7, 2)
    ends, starts = np.asarray(paths[:, -1]), np.asarray(paths[:, 0])
    # Standard errors: sqrt(2 / 4000) = 0.022 of the means and, at most, 0.045 of the covariances.
    np.testing.assert_allclose(ends.mean(0), [1.0, -1.0], atol=0.1)
    np.testing.assert_allclose(np.cov(ends.T), covariance, atol=0.2)
    np.testing.assert_allclose(starts.mean(0), prior.terminal().mean, atol=0.1)


@pytest.mark.parametrize("prior", [PRIOR, *PRIORS.values(), isotropic(jnp.zeros(3), 4.0)[0]])
def test_draws_of_a_prior_lie_about_one_width_away(prior):
    draws = prior.sample(jax.random.key(0), (500,))
    widths = np.asarray(jax.vmap(prior.widths)(draws))
    assert 0.8 < np.sqrt(np.mean(widths**2)) < 1.25
    assert widths.max() < 5.0
