"""Closed-form posteriors: the oracle that every sampler is tested against.

For x ~ sum_k w_k N(mu_k, S_k) and y = A x + noise, noise ~ N(0, Gamma) with Gamma diagonal,

    p(y) = sum_k w_k N(y; A mu_k, F_k),   F_k = A S_k A' + Gamma,

and x given y is the mixture with weights ~ w_k N(y; A mu_k, F_k), means mu_k + S_k A' F_k^{-1}
(y - A mu_k) and covariances S_k - S_k A' F_k^{-1} A S_k. Draws use Matheron's rule (a prior draw,
moved by the gain times its own misfit), so nothing of size d x d is factorised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from smcdiff.base._gaussian import MOST_LOST, log_normal_cholesky, lost_digits
from smcdiff.errors import InputError
from smcdiff.operators.base import matrix_of
from smcdiff.priors import AnalyticPrior


class LinearGaussianPosterior(dist.Distribution):
    """The exact posterior of a Gaussian or Gaussian-mixture prior under a linear observation.

    Made by `linear_gaussian_posterior`.

    Attributes:
        log_evidence: log p(y).
        log_weights: (K,) log posterior weights of the prior's components.
        means: (K, d) posterior means of the components, of flat events.
    """

    arg_constraints: ClassVar[dict] = {}
    pytree_data_fields = (
        "log_evidence", "log_weights", "means",
        "_prior", "_matrix", "_y", "_scale", "_rows", "_factors",
    )  # fmt: skip

    def __init__(self, prior: AnalyticPrior, matrix: Array, y: Array, scale: Array):
        """See `linear_gaussian_posterior`."""
        rows = prior.components.covariance_times(matrix)
        rows = jnp.broadcast_to(rows, (prior.means.shape[0], *matrix.shape))  # A S_k
        joint = jnp.einsum("kmd,nd->kmn", rows, matrix) + jnp.diag(scale**2)[None]
        factors = jnp.linalg.cholesky(joint)
        misfits = y[None] - prior.means @ matrix.T
        log_weights = prior.log_weights + jax.vmap(log_normal_cholesky)(misfits, factors)
        self.log_evidence = jax.scipy.special.logsumexp(log_weights)
        self.log_weights = log_weights - self.log_evidence
        solved = jax.vmap(lambda f, m: jsl.cho_solve((f, True), m))(factors, misfits)
        self.means = prior.means + jnp.einsum("kmd,km->kd", rows, solved)
        self._prior, self._matrix, self._y, self._scale = prior, matrix, y, scale
        self._rows, self._factors = rows, factors
        super().__init__(batch_shape=(), event_shape=prior.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The real numbers, one for each entry of an event."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @partial(jax.jit, static_argnames="sample_shape")
    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        """Exact draws, ``sample_shape + event_shape``."""
        components = self._prior.components

        def draw(key):
            key_pick, key_prior, key_noise = jax.random.split(key, 3)
            index = jax.random.categorical(key_pick, self.log_weights)
            x = components.component(index).sample(key_prior)
            noise = self._scale * jax.random.normal(key_noise, self._y.shape, x.dtype)
            misfit = self._y - self._matrix @ x - noise
            return x + jsl.cho_solve((self._factors[index], True), misfit) @ self._rows[index]

        draws = jax.vmap(draw)(jax.random.split(key, math.prod(sample_shape)))
        return jnp.reshape(draws, (*sample_shape, *self.event_shape))

    @jax.jit
    def log_prob(self, value: Float[Array, "*batch_event"]) -> Float[Array, "*batch"]:
        """Exact log density, by Bayes' rule."""
        batch = value.shape[: value.ndim - len(self.event_shape)]

        def log_likelihood(x):
            return jnp.sum(dist.Normal(0.0, self._scale).log_prob(self._y - self._matrix @ x))

        flat = value.reshape(*batch, self._matrix.shape[1])
        terms = jnp.vectorize(log_likelihood, signature="(d)->()")(flat)
        return self._prior.log_prob(value) + terms - self.log_evidence

    @property
    def mean(self) -> Float[Array, "*event"]:
        """Posterior mean, of the event's shape."""
        return (jnp.exp(self.log_weights) @ self.means).reshape(self.event_shape)

    @jax.jit
    def component_covariances(self) -> Float[Array, "k d d"]:
        """Posterior covariances of the components, dense, (K, d, d).

        In Joseph's form, (I - G A) S (I - G A)' + G Gamma G' with the gain G = S A' F^{-1}: the
        difference of the two large matrices of the textbook would lose what a small noise leaves.
        """

        def one(factor, rows, prior):
            gain = jsl.cho_solve((factor, True), rows).T
            left = prior - gain @ rows
            noise = (gain * self._scale[None] ** 2) @ gain.T
            return left - (left @ self._matrix.T) @ gain.T + noise

        return jax.vmap(one)(self._factors, self._rows, self._prior.component_covariances())

    @jax.jit
    def covariance_matrix(self) -> Float[Array, "d d"]:
        """Dense covariance of the whole posterior, of flat events, (d, d)."""
        weights = jnp.exp(self.log_weights)
        centred = self.means - jnp.ravel(self.mean)[None]
        between = jnp.einsum("k,kd,ke->de", weights, centred, centred)
        return between + jnp.einsum("k,kde->de", weights, self.component_covariances())

    @property
    def variance(self) -> Float[Array, "*event"]:
        """Posterior variance of each entry, of the event's shape."""
        return jnp.diagonal(self.covariance_matrix()).reshape(self.event_shape)


def dense_matrix(
    operator_or_matrix: Callable[..., Any] | ArrayLike | Sequence[Any], event_shape: tuple[int, ...]
) -> Float[Array, "m d"]:
    """The matrix of a linear operator, from the operator or from the matrix itself.

    Args:
        operator_or_matrix: (m, d) array, or a linear callable on events of ``event_shape``.
        event_shape: shape of one event.

    Returns:
        (m, d), acting on flat events.

    Raises:
        InputError: a matrix whose columns do not fit the event, or a callable that is not linear.
    """
    if callable(operator_or_matrix):
        matrix = matrix_of(operator_or_matrix, event_shape)
        probe = jax.random.normal(jax.random.key(0), event_shape)
        found = jnp.ravel(jnp.asarray(operator_or_matrix(probe)))
        error = jnp.abs(found - matrix @ jnp.ravel(probe))
        bound = 1e-3 * jnp.max(jnp.abs(matrix)) * (1.0 + jnp.linalg.norm(probe))
        if not isinstance(error, Tracer) and jnp.any(error > bound):
            raise InputError(
                "operator: the callable is not linear (an offset, too, is not): subtract what it"
                " gives at zero from it and from y, or give a matrix"
            )
        return matrix
    size = math.prod(event_shape)
    matrix = jnp.asarray(operator_or_matrix, jnp.result_type(float))
    if matrix.ndim != 2 or matrix.shape[1] != size:
        raise InputError(
            f"operator: the matrix has shape {matrix.shape}; it must be (d_y, {size}) for events"
            f" of shape {event_shape}"
        )
    return matrix


def linear_gaussian_posterior(
    prior: AnalyticPrior,
    operator_or_matrix: Callable[..., Any] | ArrayLike | Sequence[Any],
    y: Float[Array, "*out"],
    noise: ArrayLike | Sequence[Any],
) -> LinearGaussianPosterior:
    """The exact posterior of x given ``y = A x + noise * N(0, I)``.

    Args:
        prior: a `Gaussian` or `GaussianMixture`.
        operator_or_matrix: (m, d) matrix, or a linear callable on events.
        y: (m,) observation (any shape with m entries).
        noise: noise standard deviation, a scalar or (m,), in the units of y. Zero is allowed where
            A S_k A' is non-singular; the posterior then has draws and moments, and no density.

    Returns:
        The posterior, a NumPyro distribution with ``log_evidence`` = log p(y).

    Raises:
        InputError: another prior, shapes that do not fit, NaN, negative noise, or rows that see the
            same of x with too little noise for the precision of the arrays.
    """
    if not isinstance(prior, AnalyticPrior):
        raise InputError(
            f"linear_gaussian_posterior: the prior is a {type(prior).__name__}; an exact posterior"
            " needs priors.Gaussian or priors.GaussianMixture"
        )
    matrix = dense_matrix(operator_or_matrix, prior.event_shape)
    y = jnp.ravel(jnp.asarray(y, matrix.dtype))
    if y.shape[0] != matrix.shape[0]:
        raise InputError(f"y has {y.shape[0]} entries, the operator returns {matrix.shape[0]}")
    noise = jnp.asarray(noise, matrix.dtype)
    if noise.size not in (1, y.shape[0]):
        raise InputError(f"noise has shape {noise.shape}; give a scalar or {y.shape}")
    scale = jnp.broadcast_to(jnp.ravel(noise), y.shape)
    posterior = jax.jit(LinearGaussianPosterior)(prior, matrix, y, scale)
    if not isinstance(posterior.log_evidence, Tracer):
        _check_finite(posterior, matrix, y, scale)
    return posterior


def _check_finite(posterior: LinearGaussianPosterior, matrix, y, scale) -> None:
    """Raises ``InputError`` where the oracle would hand out NaN."""
    for name, values in (("operator", matrix), ("y", y), ("noise", scale)):
        if not np.all(np.isfinite(values)):
            raise InputError(f"linear_gaussian_posterior: {name} has NaN or infinite entries")
    if np.any(np.asarray(scale) < 0.0):
        raise InputError("linear_gaussian_posterior: noise is negative; give standard deviations")
    lost = jax.jit(lost_digits)(posterior._factors)
    if not np.isfinite(posterior.log_evidence) or lost > MOST_LOST:
        raise InputError(
            f"linear_gaussian_posterior: the covariance of y is singular in {matrix.dtype}: rows of"
            " the operator see the same of x, with little noise beside it; give more noise, leave"
            " such rows out, or call jax.config.update('jax_enable_x64', True)"
        )
