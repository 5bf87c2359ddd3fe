"""Gaussian-mixture transition densities, and what a proposal may do to them.

A reverse kernel returns the law of x_s given x_t as a `Transition`: a mixture of K Gaussians on
flat vectors (K = 1 for the usual isotropic kernel). A proposal draws from a changed law q and needs
``log p(x) - log q(x)`` at its draw. Five changes cover every method of the package, all of them
in closed form for mixtures:

* no change: ``sample``;
* a translation, q(x) = p(x - shift): ``sample_shifted`` (the guided samplers' update);
* an exponential tilt, q(x) ~ p(x) exp(g.x): ``tilted`` (for one Gaussian N(mu, V) this is
  the mean shift mu + V g of twisted diffusion sampling);
* conditioning on a Gaussian pseudo-observation, q(x) ~ p(x) N(r; H (x - mean), Sigma):
  ``conditioned``;
* fixing some coordinates, the rest from their conditional law: ``sample_fixed``; or their values
  in orthonormal directions, ``sample_pinned``.

Log ratios are computed from the change itself and never as a difference of two densities, so that
they stay finite where the transition is a Dirac (V = 0, the last step of DDIM and DDPM).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from smcdiff.base.gaussian import LOG_2PI, each_times, inverse_lower, solve_component
from smcdiff.base.module import Module
from smcdiff.diffusion.laws.changed import Conditioned, Noise, Tilted


class Transition(Module):
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
    offset: Float[Array, "#d"] | float = 0.0
    rest: Float[Array, "#k 1"] | float = 0.0
    along: Float[Array, "k q"] | None = None

    @classmethod
    def isotropic_normal(cls, mean: Float[Array, " d"], variance: Array) -> Transition:
        """N(mean, variance I), the variance a scalar."""
        spread = jnp.broadcast_to(variance, (1, 1)).astype(mean.dtype)
        return cls(jnp.zeros((1,), mean.dtype), mean[None], spread)

    @property
    def _low_rank(self) -> bool:
        """Whether there are directions orthogonal to the basis."""
        return self.basis is not None and self.basis.shape[-1] < self.basis.shape[-2]

    @property
    def _outside(self) -> Float[Array, "#k 1"]:
        """The variances orthogonal to the basis, with both axes; zero where nothing is."""
        if self._low_rank:
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
        means = self.offset + self.means
        if self.along is not None:
            means = means + jnp.einsum("kde,ke->kd", self.basis, self.along)
        return means

    def project_means(self, rows: Float[Array, "m d"]) -> Float[Array, "k m"]:
        """``component_means @ rows.T``, without a (K, d) table a particle where there is none."""
        if self.along is not None:
            return self.component_means @ rows.T
        return jnp.broadcast_to(self.offset, self.means.shape[1:]) @ rows.T + self.means @ rows.T

    @property
    def isotropic(self) -> bool:
        """Whether it is one Gaussian with a multiple of the identity as covariance."""
        single = self.eigenvalues.shape == (1, 1) and self.means.shape[0] == 1
        return single and self.basis is None

    @property
    def mean_variance(self) -> Float[Array, ""]:
        """Variance of a coordinate within a component, averaged over both."""
        averages = jnp.mean(self.eigenvalues, axis=-1)
        if self._low_rank:
            size, rank = self.means.shape[1], self._rank
            averages = (rank * averages + (size - rank) * self._outside[:, 0]) / size
        if averages.shape[0] == 1:
            return averages[0]
        return jnp.exp(self.log_weights) @ averages

    def covariance_times(self, vectors: Float[Array, "*m d"]) -> Float[Array, "#k *m d"]:
        """V_k v for every component k (one where all share a covariance) and every row v."""
        leading = (slice(None),) + (None,) * (vectors.ndim - 1)
        if self.basis is None:
            return self.eigenvalues[leading] * vectors[None]
        rotated = jnp.einsum("kde,...d->k...e", self.basis, vectors)
        if not self._low_rank:
            return jnp.einsum("kde,k...e->k...d", self.basis, self.eigenvalues[leading] * rotated)
        excess = (self.eigenvalues - self._outside)[leading] * rotated
        inside = jnp.einsum("kde,k...e->k...d", self.basis, excess)
        return inside + self._outside[leading] * vectors[None]

    def component(self, index) -> Transition:
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

    def pick(self, key: PRNGKeyArray, log_weights: Float[Array, " k"]) -> Transition:
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
        if self._low_rank:
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
        centred = x - self.offset - self.means
        spread = jnp.broadcast_to(self.eigenvalues, (self.eigenvalues.shape[0], self._rank))
        log_dets = jnp.sum(jnp.log(spread), axis=-1)
        if self.basis is None:
            return jnp.sum(centred**2 / spread, axis=-1), log_dets
        if inside is None:
            inside = jnp.einsum("kde,kd->ke", self.basis, centred)
        from_mean = inside if self.along is None else inside - self.along
        quadratics = jnp.sum(from_mean**2 / spread, axis=-1)
        if self._low_rank:
            # The difference of the two squared lengths would lose the digits of a small rest.
            outside = centred - jnp.einsum("kde,ke->kd", self.basis, inside)
            quadratics += jnp.sum(outside**2 / self._outside, axis=-1)
            log_dets += (centred.shape[1] - self._rank) * jnp.log(self._outside[:, 0])
        return quadratics, log_dets

    @property
    def _rank(self) -> int:
        """How many eigenvalues a component has."""
        return self.means.shape[1] if self.basis is None else self.basis.shape[-1]

    def sample_shifted(
        self, key: PRNGKeyArray, shift: Float[Array, " d"]
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """A draw of p, translated by ``shift``.

        Args:
            key: random key.
            shift: (d,).

        Returns:
            The draw and log p - log q there; NaN or infinite where an eigenvalue is zero.
        """
        draw = self.sample(key)
        if self.means.shape[0] > 1:
            return draw + shift, self.log_prob(draw + shift) - self.log_prob(draw)
        middle = draw - self.mean + 0.5 * shift
        if self.basis is None:
            return draw + shift, -jnp.sum(shift * middle / self.eigenvalues[0])
        inside, along = self.basis[0].T @ middle, self.basis[0].T @ shift
        log_ratio = -jnp.sum(along * inside / self.eigenvalues[0])
        if self._low_rank:
            outside = middle - self.basis[0] @ inside
            log_ratio -= jnp.sum(shift * outside / self._outside[0])
        return draw + shift, log_ratio

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log p - log q of no change at all: 0."""
        return jnp.zeros((), x.dtype)

    def tilted(
        self, gradient: Float[Array, " d"], room: Float[Array, ""] | float = jnp.inf
    ) -> Tilted:
        """q(x) ~ p(x) exp(s g.x) with s = min(1, room / g'Vg).

        Args:
            gradient: g, (d,).
            room: how far the function whose gradient g is lies below its largest value. A longer
                shift overshoots and may diverge from level to level; this one is Polyak's step,
                which never leads away from the maximum of a concave function.
        """
        rotated = None if self.basis is None else jnp.einsum("kde,d->ke", self.basis, gradient)
        within = self._variance_along(gradient, rotated)
        gain = within[0] if within.shape[0] == 1 else jnp.exp(self.log_weights) @ within
        step = jnp.where(gain > room, room / jnp.where(gain > 0.0, gain, 1.0), 1.0)
        gradient = step * gradient
        # Cumulants of g.(x - origin) of the components.
        origin = self.offset + self.means[0]
        cumulants = (self.means - self.means[0]) @ gradient + 0.5 * step**2 * within
        if rotated is not None:
            rotated = step * rotated
            if self.along is not None:
                cumulants += jnp.sum(self.along * rotated, axis=-1)
        return Tilted(self, gradient, rotated, origin, self.log_weights + cumulants)

    def _variance_along(self, vector: Float[Array, " d"], rotated) -> Float[Array, "#k"]:
        """The quadratic forms v' V_k v; ``rotated`` is v in the components' bases, (K, q)."""
        if self.basis is not None:
            squares = jnp.sum(rotated**2 * (self.eigenvalues - self._outside), axis=-1)
            return squares + self._outside[:, 0] * (vector @ vector)
        if self.eigenvalues.shape[1] == 1:
            return self.eigenvalues[:, 0] * (vector @ vector)
        return self.eigenvalues @ vector**2

    def translated(self, vector: Float[Array, " d"], rotated) -> Transition:
        """One Gaussian, its mean moved by V v; ``rotated`` is v in its basis, (1, q)."""
        if self.basis is None:
            return dataclasses.replace(self, offset=self.offset + self.eigenvalues[0] * vector)
        along = rotated * (self.eigenvalues - self._outside)
        return dataclasses.replace(
            self,
            offset=self.offset + self._outside[0] * vector,
            along=along if self.along is None else self.along + along,
        )

    def conditioned(
        self,
        matrix: Float[Array, "m d"],
        residual: Float[Array, " m"],
        noise_covariance: Float[Array, "m m"],
    ) -> Conditioned:
        """q(x) ~ p(x) N(residual; matrix (x - mean), noise_covariance).

        Args:
            matrix: H, (m, d).
            residual: r, (m,), the misfit at the mean of p.
            noise_covariance: Sigma, (m, m), positive definite.
        """
        centre = self.mean
        shifted = dataclasses.replace(self, offset=self.offset - centre)
        misfits = residual - shifted.project_means(matrix)
        gains = self.covariance_times(matrix)  # (k or 1, m, d): H V_k
        joint = jnp.einsum("kmd,nd->kmn", gains, matrix) + noise_covariance
        # One call for all: on the CPU two batched LAPACK calls that do not depend on each other
        # may run at the same time, each waiting on a pool thread that the other one holds.
        factors = jnp.linalg.cholesky(jnp.concatenate([joint, noise_covariance[None]]))
        inverses = jax.vmap(inverse_lower)(factors)
        log_dets = jnp.sum(jnp.log(jnp.diagonal(factors, axis1=1, axis2=2)), axis=1)
        noise = Noise(factors[-1], inverses[-1], log_dets[-1])
        inverses, log_dets = inverses[:-1], log_dets[:-1]
        white = each_times(inverses, misfits)
        log_normals = -0.5 * jnp.sum(white**2, axis=1) - log_dets
        log_weights = self.log_weights + log_normals - 0.5 * residual.shape[0] * LOG_2PI
        return Conditioned(self, centre, matrix, residual, noise, inverses, log_weights)

    def sample_fixed(
        self, key: PRNGKeyArray, fixed: Bool[Array, " d"], values: Float[Array, " d"]
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """Some coordinates fixed, the others from their law given those.

        Args:
            key: random key.
            fixed: (d,), which coordinates take their entry of ``values``.
            values: (d,); entries that are not fixed are ignored.

        Returns:
            The draw and the log density of the fixed coordinates.
        """
        if self.basis is not None:
            axes = jnp.eye(fixed.shape[0], dtype=self.means.dtype)
            x, log_density = self.sample_pinned(key, axes, fixed, values)
            return jnp.where(fixed, values, x), log_density
        key_pick, key_draw = jax.random.split(key)
        values = jnp.where(fixed, values, self.mean)
        misfits = jnp.where(fixed, values - self.offset - self.means, 0.0)
        spread = jnp.broadcast_to(self.eigenvalues, self.means.shape)
        terms = misfits**2 / spread + jnp.log(spread) + LOG_2PI
        log_weights = self.log_weights - 0.5 * jnp.sum(jnp.where(fixed, terms, 0.0), axis=-1)
        draw = self.pick(key_pick, log_weights).draw(key_draw)
        return jnp.where(fixed, values, draw), logsumexp(log_weights)

    def sample_pinned(
        self,
        key: PRNGKeyArray,
        rows: Float[Array, "m d"],
        used: Bool[Array, " m"],
        values: Float[Array, " m"],
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """A draw given what it is in some orthonormal directions.

        It is Matheron's, as in `Conditioned`, for an observation without noise.

        Args:
            key: random key.
            rows: (m, d), orthonormal.
            used: (m,), which rows count.
            values: (m,), what ``rows @ x`` is to be; entries that are not used are ignored.

        Returns:
            The draw and the log density of ``rows @ x`` at the values, of the rows that are used.
            Where the transition is a Dirac the draw is the nearest point and the density is none.
        """
        key_pick, key_draw = jax.random.split(key)
        rows = jnp.where(used[:, None], rows, 0.0)
        misfits = jnp.where(used, values - self.project_means(rows), 0.0)
        gains = self.covariance_times(rows)  # (k or 1, m, d)
        joint = jnp.einsum("kmd,nd->kmn", gains, rows)
        # Rows that are not used become those of the identity, so that sizes are static. The others
        # are taken in their own scales, and get no more than rounding on their diagonal, for the
        # factors' sake.
        variances = jnp.diagonal(joint, axis1=1, axis2=2)
        scales = jnp.sqrt(jnp.where(used & (variances > 0.0), variances, 1.0))
        rounding = jnp.where(used, jnp.finfo(joint.dtype).eps, 1.0)
        joint = joint / (scales[:, :, None] * scales[:, None, :]) + jnp.diag(rounding)
        factors = jnp.linalg.cholesky(joint)
        inverses = jax.vmap(inverse_lower)(factors) / scales[:, None, :]
        white = each_times(inverses, misfits)
        diagonals = jnp.diagonal(factors, axis1=1, axis2=2) * scales
        log_dets = jnp.sum(jnp.log(diagonals), axis=1)
        log_normals = -0.5 * (jnp.sum(white**2, axis=1) + jnp.sum(used) * LOG_2PI) - log_dets
        log_weights = self.log_weights + log_normals
        index = self.pick_index(key_pick, log_weights)
        single = self.component(index)
        draw = single.draw(key_draw)
        misfit = jnp.where(used, values - rows @ draw, 0.0)
        solved = solve_component(inverses, misfit, index)
        draw = draw + single.covariance_times(solved @ rows)[0]
        left = jnp.where(used, values - rows @ draw, 0.0)  # rounding, or all of it at a Dirac
        return draw + left @ rows, logsumexp(log_weights)
