"""Training-free guidance: DPS (Chung et al. 2023) and PiGDM (Song et al. 2023).

Both translate the draw of the reverse kernel by a multiple of a gradient through the denoiser.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base.module import static
from smcdiff.errors import InputError
from smcdiff.proposals.base import Proposal, ReverseModel
from smcdiff.proposals.singular import (
    PseudoObservation,
    end_exactly,
    require_singular,
    singular_system,
)  # fmt: skip
from smcdiff.proposals.twists import log_twist, widening


class _Guide(NamedTuple):
    """The denoised mean, and the translation of the next draw."""

    denoised: Float[Array, " d"]
    shift: Float[Array, " d"]


class _Translated(Proposal):
    """A draw of the reverse kernel, translated by what ``guide`` found."""

    def propose(self, key, model: ReverseModel, shared, x, guide: _Guide, step):
        """The translated draw; where it has no density and is weighed, it is not translated."""
        transition = model.transition(x, guide.denoised, step)
        frozen = model.no_density(step)
        shift = jnp.where(frozen, 0.0, guide.shift)
        moved, log_ratio = transition.sample_shifted(key, shift)
        return moved, jnp.where(frozen, 0.0, log_ratio)


class DPS(_Translated):
    """Diffusion posterior sampling (Chung et al. 2023, algorithm 1).

    x_s <- x_s - scale * grad |y - A m(x_t)|, the norm in the units of y and of one particle alone:
    the paper's step zeta_t = scale / |y - A m(x_t)| on the squared norm. The noise of y does not
    enter. The paper's appendix D takes scale = 1 for FFHQ inpainting, super-resolution and
    deblurring, its code 0.3 to 0.5, both for data in [-1, 1] and 1,000 ancestral steps (eta = 1);
    fewer steps want a larger one. A may be any differentiable mean of a Gaussian observation. An
    exact observation is followed with weights off, and met only nearly.

    Heuristic with weights off. With weights on the target is the posterior: the twist is
    `Twisted`'s, and the translation is weighed.

    Cost: one network evaluation and one vector-Jacobian product a particle and step.

    Attributes:
        scale: zeta', in units of x over units of the norm.
    """

    scale: float = static(default=1.0)

    def __post_init__(self):
        if not self.scale > 0.0:
            raise InputError(f"DPS: scale is {self.scale}; it must be positive")

    def takes_exact(self, weighted):
        """With weights off."""
        return not weighted

    def check(self, model):
        """Raises ``InputError`` where an observed site is not Gaussian."""
        event = jax.ShapeDtypeStruct((model.size,), jnp.result_type(float))
        jax.eval_shape(lambda x: model.misfit(x), event)

    def prepare(self, key, model):
        """What the twist of the weights needs."""
        return widening(key, model) if model.weighted else None

    def guide(self, model, shared, x, step):
        """The gradient of the misfit's norm, and the twist where weights are on."""
        t = model.level(step)
        denoised, pullback = jax.vjp(lambda x: model.denoise(x, t), x)

        def norm(denoised):
            square = jnp.sum(model.misfit(denoised) ** 2)
            return jnp.sqrt(jnp.where(square > 0.0, square, 1.0))

        (gradient,) = pullback(jax.grad(norm)(denoised))
        value = log_twist(model, shared, denoised, t).value if model.weighted else jnp.zeros(())
        return value, _Guide(denoised, -self.scale * gradient)


class PiGDM(_Translated):
    """Pseudo-inverse guided diffusion (Song et al. 2023, algorithm 1).

    x_s <- x_s + alpha_t r_t^2 g, where g is the gradient of log N(y; A m(x_t), r_t^2 A A' +
    sigma_y^2 I) with the covariance held fixed, and r_t^2 = sigma_t^2 / (alpha_t^2 + sigma_t^2):
    the variance of x_0 given x_t for data of unit variance, which is what the paper assumes (its
    sigma_t is ours over alpha_t). As sigma_y goes to zero r_t^2 g becomes the pseudo-inverse form,
    and for an exact observation the last step draws the reverse kernel given A x_0 = y instead.
    The paper takes DDIM steps with eta = 1 or less: pass ``kernel=kernels.DDIM(eta)``.

    Heuristic with weights off. With weights on the twist is the guiding density.

    Cost: one network evaluation and one vector-Jacobian product a particle and step; one
    decomposition of the operator a run.
    """

    def takes_exact(self, weighted):
        """Always."""
        return True

    def check(self, model):
        """Raises ``InputError`` unless the observation is linear-Gaussian."""
        require_singular(model, "PiGDM")

    def prepare(self, key, model):
        """The singular system of the operator."""
        return singular_system(model)

    def guide(self, model, shared, x, step):
        """The guiding density of the denoised mean, and its gradient."""
        t = model.level(step)
        spread = t.sigma**2 / (t.alpha**2 + t.sigma**2)
        one = jnp.ones(())
        variances = shared.noise + spread * shared.values**2
        guiding = PseudoObservation(shared.observed, one, variances)
        denoised, pullback = jax.vjp(lambda x: model.denoise(x, t), x)
        misfit = shared.observed - shared.project(denoised)
        (gradient,) = pullback(shared.right.T @ (shared.values * misfit / variances))
        value = guiding.log_density(shared, denoised)
        return value, _Guide(denoised, t.alpha * spread * gradient)

    def propose(self, key, model, shared, x, guide: _Guide, step):
        """The translated draw."""
        move = partial(super().propose, key, model, shared, x, guide, step)
        return end_exactly(key, model, shared, x, guide.denoised, step, move)
