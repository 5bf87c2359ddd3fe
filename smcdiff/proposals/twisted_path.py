"""Twisted sampling along a forward path of the observation that the particles share."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base.module import static
from smcdiff.diffusion.schedules import Grid, Level
from smcdiff.errors import InputError
from smcdiff.priors import Prior
from smcdiff.problem import ReverseModel
from smcdiff.proposals._shared_path import Along, SharedPath
from smcdiff.proposals.paths import OnPath
from smcdiff.twists import Evaluation


class _Slope(NamedTuple):
    """What the draw needs of the twist: its gradient, and how far it lies below its maximum."""

    gradient: Float[Array, " d"]
    room: Float[Array, ""]


class TwistedPath(OnPath):
    """`Twisted` along a forward path of the observation, which the particles of a chain share.

    y is noised to the levels of the grid, once per chain, and every particle is held to this path
    in the directions that y sees, as in SMC-Diff (Trippe et al. 2022, algorithm 1) and FPS (Dou and
    Song 2024): the particles differ by what y does not see, and are weighed by p(y_s given x_t).
    The noise of y is taken for the diffusion's own, as in MCGDiff (Cardoso et al. 2023):
    a direction is on the path down to the level u at which x_u / alpha_u is as noisy as y,
    is y there, and follows the reverse kernel below. What is not held is steered by the twist

        psi_t = prod_i N(z_i; v_i' m(x_t), 1 / Delta_i + spread_t),

    z_i being what y tells of v_i' x_0 beyond the path at level t, with precision Delta_i. Since all
    particles have the same noise where they are observed, the twist has little to compare, and the
    weights vary far less than those of `Twisted`.

    Within a chain the filter targets the posterior given the path, and chains count alike; see
    `paths.OnPath`.

    Cost: one network evaluation per particle and step, and one vector-Jacobian product at the
    levels where particles are steered. With `kernels.Exact`, whose laws are not isotropic
    Gaussians, they are not. One decomposition of the operator per run.

    Attributes:
        until: particles are steered as long as more than this share of the prior's variance is open
            (the denoising error over that at the noisiest level). What y tells of the rest is
            decided by then; below it the twist cost as many products again and saved no founder.
    """

    # Of 256 particles in all, the more paths they had the better they were calibrated and the lower
    # was their CRPS: experiments/learned_calibration.
    usual_size: ClassVar[tuple[int, int]] = (4, 64)
    until: float = static(default=0.1, kw_only=True)

    def __post_init__(self):
        if not 0.0 <= self.until <= 1.0:
            raise InputError(f"TwistedPath: until is {self.until}; it must lie in [0, 1]")

    def default_grid(self, prior: Prior) -> Grid:
        """Most steps where the prior decides, if it knows where: see `DenoisingError.focus`."""
        error = prior.denoising_error
        return super().default_grid(prior) if error is None else error.focus()

    def evaluate(
        self, model: ReverseModel, prepared: SharedPath, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """The twist and its gradient; one network evaluation and its VJP."""
        if not model.kernel.uses_denoised:
            return Evaluation(jnp.zeros((), x.dtype), None)
        prior = model.problem.prior

        def twisted():
            def log_twist(x):
                denoised = model.denoise(x, t)
                return -prepared.misfit(denoised, t, prior.spread(t)), denoised

            (value, denoised), gradient = jax.value_and_grad(log_twist, has_aux=True)(x)
            return Evaluation(value, denoised, _Slope(gradient, -value))

        def plain():
            zero = jnp.zeros((), x.dtype)
            return Evaluation(zero, model.denoise(x, t), _Slope(jnp.zeros_like(x), zero))

        open_share = prior.average_spread(t) / prior.average_spread(model.first)
        return jax.lax.cond(open_share > self.until, twisted, plain)

    def steer(
        self, path: SharedPath, along: Along, evaluation: Evaluation, drawn: Float[Array, " d"]
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """The shift of an isotropic draw along the twist's gradient, and its log ratio.

        It is no longer than Polyak's step (see `laws.Tilted`), and changes nothing of which the
        path tells.
        """
        slope, base = evaluation.detail, along.law.base
        if slope is None or not base.isotropic:
            return super().steer(path, along, evaluation, drawn)
        directions = path.held.system.directions
        known = jnp.where(along.used, directions(slope.gradient), 0.0)
        gradient = slope.gradient - directions.adjoint(known)
        gain = base.mean_variance * jnp.sum(gradient**2)
        step = jnp.where(gain > slope.room, slope.room / jnp.where(gain > 0.0, gain, 1.0), 1.0)
        gradient = step * gradient
        # Of N(mean, v) at draw + v g over N(mean + v g, v) there; where p is a Dirac nothing moves.
        log_ratio = -gradient @ (drawn - base.mean)
        log_ratio = log_ratio - 0.5 * base.mean_variance * jnp.sum(gradient**2)
        return base.mean_variance * gradient, log_ratio
