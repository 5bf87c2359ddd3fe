"""DDRM: denoising diffusion restoration models (Kawar et al. 2022)."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base._numbers import Scalar
from smcdiff.base.module import static
from smcdiff.diffusion.laws.substituted import AlongDirections
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.problem import ReverseModel
from smcdiff.proposals._singular_draw import SingularDraw
from smcdiff.twists._singular import SingularSystem


class Coefficients(NamedTuple):
    """The law of one singular coordinate after a step, in units where alpha = 1.

    N(m + on_state (x_t - m) + on_data (y - m), variance), with m the denoised coordinate and y
    the observed one.
    """

    on_state: Float[Array, "*r"]
    on_data: Float[Array, "*r"]
    variance: Float[Array, "*r"]


def coefficients(
    sigma_t: Scalar,
    sigma_s: Scalar,
    noise: Float[Array, "*r"],
    eta: Float[Array, ""] | float,
    eta_b: Float[Array, ""] | float | None,
) -> Coefficients:
    """The three cases of Kawar et al. (2022), eq. 8.

    Args:
        sigma_t: noise level before the step, over alpha_t.
        sigma_s: noise level after it, over alpha_s.
        noise: standard deviation of the observed coordinate, sigma_y / s_i; 0 and infinity (a
            singular value of zero) are allowed.
        eta: stochasticity of coordinates that are seen less well than the level, in [0, 1].
        eta_b: weight of the observation in the others; None is 2 sigma_s^2 / (sigma_s^2 + noise^2),
            with which eta = 1 is trained like a DDPM (their theorem 3.2). Where both noises are 0
            the datum is x_0 itself and is taken whatever eta_b.

    Returns:
        The coefficients; for every eta and eta_b that is allowed the law of x_s given x_0 is
        N(x_0, sigma_s^2).
    """
    seen = jnp.isfinite(noise)
    finite = jnp.where(seen, noise, 1.0)
    total = sigma_s**2 + finite**2
    if eta_b is None:
        eta_b = 2.0 * sigma_s**2 / jnp.where(total > 0, total, 1.0)
    eta_b = jnp.where(total > 0, eta_b, 1.0)
    kept = jnp.sqrt(1.0 - eta**2) * sigma_s
    sharp = seen & (sigma_s >= finite)
    positive = jnp.where(finite > 0, finite, 1.0)
    on_data = jnp.where(sharp, eta_b, jnp.where(seen, kept / positive, 0.0))
    on_state = jnp.where(seen, 0.0, kept / sigma_t)
    variance = jnp.where(sharp, sigma_s**2 - (eta_b * finite) ** 2, (eta * sigma_s) ** 2)
    return Coefficients(on_state, on_data, jnp.maximum(variance, 0.0))


class DDRM(SingularDraw):
    """Denoising diffusion restoration: exact Gaussian conditionals, a singular vector at a time.

    With weights off it is the published sampler (Kawar et al. 2022, eq. 7 and 8) on the noise
    levels sigma / alpha. The published law takes the denoised mean for x_0; with weights on it is
    averaged over x_0 given x_t, N(m(x_t), spread I), and no narrower than the noise of y or of the
    level, whichever is less, or its tails would be too light to weigh against the reverse kernel.
    The draws are far wider than a fine grid's reverse steps, so the weights want a coarse grid and
    many particles. An exact observation is the published sigma_y = 0; the last step then takes
    A x_0 = y whatever eta_b, and with weights on draws the reverse kernel given it.

    Cost: one network evaluation per particle and step; one decomposition of the operator per run.

    Attributes:
        eta: in [0, 1]; published 0.85.
        eta_b: in [0, 1]; published 1; None is the DDPM choice 2 sigma^2 / (sigma^2 + noise^2).
        twist: by default `twists.NoisedObservation`.
    """

    eta: float = static(default=0.85)
    eta_b: float | None = static(default=1.0)

    def __post_init__(self):
        super().__post_init__()
        for name in ("eta", "eta_b"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise InputError(f"DDRM: {name} is {value}; it must lie in [0, 1]")

    def takes_exact(self, weighted: bool) -> bool:
        """Where the twist does."""
        return self.twist.takes_exact or not weighted

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` unless the observation is linear and the draws have a density."""
        super().check(model)
        if model.weighted and self.eta == 0.0:
            raise InputError(
                "DDRM: with eta = 0 its draws have no density to weigh; use eta > 0 or"
                " weighted=False"
            )

    @staticmethod
    def _noise(system: SingularSystem) -> Float[Array, " r"]:
        seen = system.seen
        noise = jnp.sqrt(system.noise) / jnp.where(seen, system.values, 1.0)
        return jnp.where(seen, noise, jnp.inf)

    def first_law(self, model: ReverseModel, system: SingularSystem) -> AlongDirections:
        """Observed coordinates around the data with variance sigma_T^2 - noise^2."""
        level = model.first
        sigma, noise = level.sigma / level.alpha, self._noise(system)
        sharp = noise <= sigma
        variances = jnp.where(sharp, sigma**2 - noise**2, sigma**2)
        if model.weighted:
            variances = jnp.maximum(variances, jnp.minimum(noise, sigma) ** 2)
        scales = jnp.sqrt(jnp.maximum(variances, 0.0))
        mean = system.directions.adjoint(jnp.where(sharp, system.data, 0.0))
        return AlongDirections(
            level.alpha * mean, system.directions, level.alpha * scales, level.sigma
        )

    def next_law(
        self,
        model: ReverseModel,
        system: SingularSystem,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"],
        t: Level,
        s: Level,
    ) -> AlongDirections:
        """The published update; what the operator does not see moves like a value of zero."""
        sigma_t, sigma_s = t.sigma / t.alpha, s.sigma / s.alpha
        law = coefficients(sigma_t, sigma_s, self._noise(system), self.eta, self.eta_b)
        kept = jnp.sqrt(1.0 - self.eta**2) * sigma_s / sigma_t
        outward = x / t.alpha - denoised
        shift = (law.on_state - kept) * system.directions(outward)
        shift += law.on_data * (system.data - system.directions(denoised))
        mean = denoised + kept * outward + system.directions.adjoint(shift)
        variances, outer = law.variance, (self.eta * sigma_s) ** 2
        if model.weighted:
            spread = model.problem.prior.average_spread(t)
            # sigma^2 - noise^2 vanishes where the noise is that of the level; the posterior's does
            # not, and the weights would have no variance.
            variances = jnp.maximum(variances, jnp.minimum(self._noise(system), sigma_s) ** 2)
            variances += (1.0 - law.on_state - law.on_data) ** 2 * spread
            outer += (1.0 - kept) ** 2 * spread
        scales = s.alpha * jnp.sqrt(variances)
        return AlongDirections(s.alpha * mean, system.directions, scales, s.alpha * jnp.sqrt(outer))
