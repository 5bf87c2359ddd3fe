"""A mixture of which some coordinates, or some orthonormal directions, are known exactly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from smcdiff.base._gaussian import LOG_2PI, each_times, inverse_lower, solve_component
from smcdiff.diffusion.laws.conditioned import dense_rows
from smcdiff.diffusion.laws.law import Law
from smcdiff.diffusion.laws.mixture import Mixture
from smcdiff.operators import LinearOperator


class PinnedDirections(Law):
    """Some orthonormal directions pinned, the rest from its law given those.

    The draw is Matheron's, as in `Conditioned`, for an observation without noise; where p is a
    Dirac it is the nearest point. Made by `pinned`.

    Attributes:
        base: p.
        rows: (r, d), zero where a direction is free.
        used: (r,) which directions are pinned.
        values: (r,) what ``rows @ x`` is to be.
        inverses: (K, r, r) inverse Cholesky factors of the rows' covariances.
        log_weights: (K,) log weights of the components of q, not normalised: their sum is the
            density of the pinned directions under p.
    """

    base: Mixture
    rows: Float[Array, "r d"]
    used: Bool[Array, " r"]
    values: Float[Array, " r"]
    inverses: Float[Array, "#k r r"]
    log_weights: Float[Array, " k"]

    @classmethod
    def of(
        cls,
        base: Mixture,
        rows: Float[Array, "r d"],
        used: Bool[Array, " r"],
        values: Float[Array, " r"],
    ) -> PinnedDirections:
        """From orthonormal rows; those that are not used are ignored."""
        rows = jnp.where(used[:, None], rows, 0.0)
        misfits = jnp.where(used[None], values[None] - base.project_means(rows), 0.0)
        joint = jnp.einsum("kmd,nd->kmn", base.covariance_times(rows), rows)
        # Rows that are not used become those of the identity, so that sizes are static. The others
        # are taken in their own scales, and get no more than rounding on their diagonal, for the
        # factors' sake.
        variances = jnp.diagonal(joint, axis1=1, axis2=2)
        scales = jnp.sqrt(jnp.where(used[None] & (variances > 0.0), variances, 1.0))
        rounding = jnp.where(used, jnp.finfo(joint.dtype).eps, 1.0)
        joint = joint / (scales[:, :, None] * scales[:, None, :]) + jnp.diag(rounding)[None]
        factors = jnp.linalg.cholesky(joint)
        inverses = jax.vmap(inverse_lower)(factors) / scales[:, None, :]
        white = each_times(inverses, misfits)
        log_dets = jnp.sum(jnp.log(jnp.diagonal(factors, axis1=1, axis2=2) * scales), axis=1)
        log_normals = -0.5 * (jnp.sum(white**2, axis=1) + jnp.sum(used) * LOG_2PI) - log_dets
        return cls(base, rows, used, values, inverses, base.log_weights + log_normals)

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """One draw."""
        key_pick, key_draw = jax.random.split(key)
        index = self.base.pick_index(key_pick, self.log_weights)
        single = self.base.component(index)
        draw = single.draw(key_draw)
        solved = solve_component(self.inverses, self._misfit(draw), index)
        draw = draw + single.covariance_times(solved @ self.rows)[0]
        # What is left is rounding, or all of it at a Dirac.
        return draw + self._misfit(draw) @ self.rows

    def _misfit(self, x: Float[Array, " d"]) -> Float[Array, " r"]:
        return jnp.where(self.used, self.values - self.rows @ x, 0.0)

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log density of the pinned directions under p, the same for every x that has them."""
        return logsumexp(self.log_weights)


class PinnedAlong(Law):
    """The same of an isotropic Gaussian: no matrix is made. Made by `pinned`.

    Attributes:
        base: p = N(mean, v I).
        directions: operator from (d,) to (r,) with orthonormal rows.
        used: (r,) which directions are pinned.
        values: (r,) what they are to be.
    """

    base: Mixture
    directions: LinearOperator
    used: Bool[Array, " r"]
    values: Float[Array, " r"]

    def _misfit(self, x: Float[Array, " d"]) -> Float[Array, " r"]:
        return jnp.where(self.used, self.values - self.directions(x), 0.0)

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """One draw."""
        draw = self.base.sample(key)
        return draw + self.directions.adjoint(self._misfit(draw))

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log density of the pinned directions under p."""
        variance = self.base.mean_variance
        terms = self._misfit(self.base.mean) ** 2 / variance + jnp.log(variance) + LOG_2PI
        return -0.5 * jnp.sum(jnp.where(self.used, terms, 0.0))


class PinnedCoordinates(Law):
    """Some coordinates of a mixture with diagonal covariances pinned. Made by `pinned`.

    Attributes:
        base: p, without a basis.
        used: (d,) which coordinates are pinned.
        values: (d,) what they are to be.
        log_weights: (K,) as in `PinnedDirections`.
    """

    base: Mixture
    used: Bool[Array, " d"]
    values: Float[Array, " d"]
    log_weights: Float[Array, " k"]

    @classmethod
    def of(
        cls, base: Mixture, used: Bool[Array, " d"], values: Float[Array, " d"]
    ) -> PinnedCoordinates:
        """From p and the values; entries that are not used are ignored."""
        values = jnp.where(used, values, base.mean)
        misfits = (values - base.offset)[None] - base.means
        spread = jnp.broadcast_to(base.eigenvalues, base.means.shape)
        terms = misfits**2 / spread + jnp.log(spread) + LOG_2PI
        log_normals = -0.5 * jnp.sum(jnp.where(used[None], terms, 0.0), axis=-1)
        return cls(base, used, values, base.log_weights + log_normals)

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """One draw."""
        key_pick, key_draw = jax.random.split(key)
        draw = self.base.pick(key_pick, self.log_weights).draw(key_draw)
        return jnp.where(self.used, self.values, draw)

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log density of the pinned coordinates under p."""
        return logsumexp(self.log_weights)


def pinned(
    base: Mixture,
    directions: LinearOperator,
    used: Bool[Array, " r"],
    values: Float[Array, " r"],
) -> PinnedAlong | PinnedCoordinates | PinnedDirections:
    """P given what x is in some orthonormal directions.

    No matrix is made where p is an isotropic Gaussian, or its covariances are diagonal and the
    directions those of single coordinates.

    Args:
        base: p.
        directions: operator from (d,) to (r,) with orthonormal rows.
        used: (r,) which directions are pinned.
        values: (r,) what they are to be; entries that are not used are ignored.

    Raises:
        InputError: directions that would make too large a matrix.
    """
    if base.isotropic:
        return PinnedAlong(base, directions, used, values)
    if base.basis is None and directions.picks_entries:
        coordinates = directions.adjoint(used.astype(values.dtype)) != 0.0
        spread = directions.adjoint(jnp.where(used, values, 0.0))
        return PinnedCoordinates.of(base, coordinates, spread)
    return PinnedDirections.of(base, dense_rows(directions), used, values)
