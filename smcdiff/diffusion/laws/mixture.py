"""A mixture of Gaussians on flat vectors: the reverse kernels, and the analytic priors.

A reverse kernel returns the law of x_s given x_t as a `Mixture` of K Gaussians (K = 1 for the usual
isotropic kernel); a `smcdiff.priors.GaussianMixture` holds one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base._gaussian import LOG_2PI
from smcdiff.base._numbers import Scalar
from smcdiff.diffusion.laws.law import Law


class Mixture(Law):
    """A mixture of K Gaussians on flat vectors of length d.

    Component k has mean ``offset + means[k] + basis[k] @ along[k]`` and a covariance with
    ``eigenvalues[k]`` along the columns of ``basis[k]`` and ``rest[k]`` in all directions
    orthogonal to them: q columns describe low-rank-plus-isotropic covariances at q / d of the cost
    of full ones. ``offset`` and ``along`` keep what depends on the particle apart from a table of
    means that does not, where that is possible: under ``vmap`` the table then stays one (K, d)
    matrix, and what was computed in a basis leaves it in the component that is drawn, not in all.

    Attributes:
        log_weights: (K,) normalised log mixture weights.
        means: (K, d).
        eigenvalues: (K, q); axes may be 1 where components share a covariance or are isotropic.
            Zero is allowed.
        basis: (K, d, q) orthonormal columns, or None for the d coordinate axes.
        offset: (d,), or a scalar zero.
        rest: (K, 1) variance orthogonal to the basis, or a scalar; unused where q = d.
        along: (K, q), or None for zero; None without a basis.
    """

    log_weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    eigenvalues: Float[Array, "#k #q"]
    basis: Float[Array, "k d q"] | None = None
    offset: Float[Array, "#d"] | Scalar = 0.0
    rest: Float[Array, "#k 1"] | Scalar = 0.0
    along: Float[Array, "k q"] | None = None

    @classmethod
    def isotropic_normal(cls, mean: Float[Array, " d"], variance: Array) -> Mixture:
        """N(mean, variance I), the variance a scalar."""
        spread = jnp.broadcast_to(variance, (1, 1)).astype(mean.dtype)
        return cls(jnp.zeros((1,), mean.dtype), mean[None], spread)

    @property
    def is_low_rank(self) -> bool:
        """Whether there are directions orthogonal to the basis."""
        return self.basis is not None and self.basis.shape[-1] < self.basis.shape[-2]

    @property
    def _outside(self) -> Float[Array, "#k 1"]:
        """The variances orthogonal to the basis, with both axes; zero where nothing is."""
        if self.is_low_rank:
            return jnp.reshape(self.rest, (-1, 1))
        return jnp.zeros((1, 1), self.means.dtype)

    @property
    def mean(self) -> Float[Array, " d"]:
        """Mean of the mixture."""
        weights = jnp.exp(self.log_weights)
        mean = self.means[0] if self.means.shape[0] == 1 else weights @ self.means
        if self.along is not None:
            mean = mean + jnp.einsum("kde,ke->d", self.basis, weights[:, None] * self.along)
        return self.offset + mean

    @property
    def component_means(self) -> Float[Array, "k d"]:
        """Means of the components."""
        means = self._offset_row + self.means
        if self.along is not None:
            means = means + jnp.einsum("kde,ke->kd", self.basis, self.along)
        return means

    @property
    def _offset_row(self) -> Float[Array, "1 #d"]:
        """The offset with an axis for the components."""
        return jnp.atleast_2d(self.offset)

    def project_means(self, rows: Float[Array, "m d"]) -> Float[Array, "k m"]:
        """``component_means @ rows.T``, without a (K, d) table per particle where there is none."""
        if self.along is not None:
            return self.component_means @ rows.T
        offset = jnp.broadcast_to(self._offset_row, (1, self.means.shape[1]))
        return offset @ rows.T + self.means @ rows.T

    @property
    def isotropic(self) -> bool:
        """Whether it is one Gaussian with a multiple of the identity as covariance."""
        single = self.eigenvalues.shape == (1, 1) and self.means.shape[0] == 1
        return single and self.basis is None

    @property
    def mean_variance(self) -> Float[Array, ""]:
        """Variance of a coordinate within a component, averaged over both."""
        averages = jnp.mean(self.eigenvalues, axis=-1)
        if self.is_low_rank:
            size, rank = self.means.shape[1], self._rank
            averages = (rank * averages + (size - rank) * self._outside[:, 0]) / size
        if averages.shape[0] == 1:
            return averages[0]
        return jnp.exp(self.log_weights) @ averages

    def covariance_times(self, vectors: Float[Array, "*m d"]) -> Float[Array, "k *m d"]:
        """V_k v for every component k (one where all share a covariance) and every row v."""
        if vectors.ndim == 1:
            return self.covariance_times(vectors[None])[:, 0]
        if self.basis is None:
            return self.eigenvalues[:, None] * vectors[None]
        rotated = jnp.einsum("kde,md->kme", self.basis, vectors)
        if not self.is_low_rank:
            return jnp.einsum("kde,kme->kmd", self.basis, self.eigenvalues[:, None] * rotated)
        excess = (self.eigenvalues - self._outside)[:, None] * rotated
        inside = jnp.einsum("kde,kme->kmd", self.basis, excess)
        return inside + self._outside[:, None] * vectors[None]

    def with_variances(self, change: Callable[[Array], Array], scale: Scalar = 1.0) -> Mixture:
        """Components at ``scale means``, each variance v of theirs changed to ``change(v)``."""
        return dataclasses.replace(
            self,
            means=scale * self.means,
            eigenvalues=change(self.eigenvalues),
            rest=change(jnp.asarray(self.rest)),
        )

    def component(self, index) -> Mixture:
        """Component ``index`` as a single Gaussian."""

        def take(leaf):
            if leaf is None or jnp.ndim(leaf) == 0 or leaf.shape[0] == 1:
                return leaf
            return jax.lax.dynamic_slice_in_dim(leaf, index, 1)

        return dataclasses.replace(
            self,
            log_weights=jnp.zeros((1,), self.means.dtype),
            means=take(self.means),
            eigenvalues=take(self.eigenvalues),
            basis=take(self.basis),
            rest=take(self.rest),
            along=take(self.along),
        )

    def pick(self, key: PRNGKeyArray, log_weights: Float[Array, " k"]) -> Mixture:
        """One component, drawn with the given log weights, as a single Gaussian."""
        return self.component(self.pick_index(key, log_weights))

    def pick_index(self, key: PRNGKeyArray, log_weights: Float[Array, " k"]) -> Array | int:
        """The number of one component, drawn with the given log weights."""
        return 0 if self.means.shape[0] == 1 else jax.random.categorical(key, log_weights)

    def draw(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """A draw, given that there is one component."""
        noise = jax.random.normal(key, self.means.shape[1:], self.means.dtype)
        scales = jnp.sqrt(self.eigenvalues[0])
        around = self.offset + self.means[0]
        if self.basis is None:
            return around + scales * noise
        if self.is_low_rank:
            outer = jnp.sqrt(self._outside[0])
            around = around + outer * noise
            inside = (scales - outer) * (self.basis[0].T @ noise)
        else:
            inside = scales * noise
        if self.along is not None:
            inside = inside + self.along[0]
        return around + self.basis[0] @ inside

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """One draw."""
        key_pick, key_draw = jax.random.split(key)
        return self.pick(key_pick, self.log_weights).draw(key_draw)

    def log_prob(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log density; infinite or NaN where an eigenvalue is zero."""
        quadratics, log_dets = self.mahalanobis(x)
        constant = x.shape[0] * LOG_2PI
        return logsumexp(self.log_weights - 0.5 * (quadratics + log_dets + constant))

    def mahalanobis(
        self, x: Float[Array, " d"], inside: Float[Array, "k q"] | None = None
    ) -> tuple[Float[Array, " k"], Float[Array, "#k"]]:
        """Squared Mahalanobis distances of x to the components, and their log determinants.

        Args:
            x: (d,).
            inside: x from ``offset + means[k]`` in ``basis[k]``, where that is known already.
        """
        centred = (x - self.offset)[None] - self.means
        spread = jnp.broadcast_to(self.eigenvalues, (self.eigenvalues.shape[0], self._rank))
        log_dets = jnp.sum(jnp.log(spread), axis=-1)
        if self.basis is None:
            return jnp.sum(centred**2 / spread, axis=-1), log_dets
        if inside is None:
            inside = jnp.einsum("kde,kd->ke", self.basis, centred)
        from_mean = inside if self.along is None else inside - self.along
        quadratics = jnp.sum(from_mean**2 / spread, axis=-1)
        if self.is_low_rank:
            # The difference of the two squared lengths would lose the digits of a small rest.
            outside = centred - jnp.einsum("kde,ke->kd", self.basis, inside)
            quadratics += jnp.sum(outside**2 / self._outside, axis=-1)
            log_dets += (centred.shape[1] - self._rank) * jnp.log(self._outside[:, 0])
        return quadratics, log_dets

    @property
    def _rank(self) -> int:
        """How many eigenvalues a component has."""
        return self.means.shape[1] if self.basis is None else self.basis.shape[-1]

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log p - log q of no change at all: 0."""
        return jnp.zeros((), x.dtype)

    def variance_along(
        self, vector: Float[Array, " d"], rotated: Float[Array, "k q"] | None
    ) -> Float[Array, "*k"]:
        """The quadratic forms v' V_k v; ``rotated`` is v in the components' bases, if any."""
        if rotated is not None:
            squares = jnp.sum(rotated**2 * (self.eigenvalues - self._outside), axis=-1)
            return squares + self._outside[:, 0] * (vector @ vector)
        if self.eigenvalues.shape[1] == 1:
            return self.eigenvalues[:, 0] * (vector @ vector)
        return self.eigenvalues @ vector**2

    def translated(
        self, vector: Float[Array, " d"], rotated: Float[Array, "1 q"] | None
    ) -> Mixture:
        """One Gaussian, its mean moved by V v; ``rotated`` is v in its basis, if any."""
        if rotated is None:
            return dataclasses.replace(self, offset=self.offset + self.eigenvalues[0] * vector)
        along = rotated * (self.eigenvalues - self._outside)
        return dataclasses.replace(
            self,
            offset=self.offset + self._outside[0] * vector,
            along=along if self.along is None else self.along + along,
        )
