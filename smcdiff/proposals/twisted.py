"""Twisted diffusion sampling (Wu et al. 2023)."""

from __future__ import annotations

import jax

from smcdiff.base.module import static
from smcdiff.errors import InputError
from smcdiff.proposals.base import Proposal
from smcdiff.proposals.twists import NUM_POINTS, log_twist, widening


class Twisted(Proposal):
    """Twisted diffusion sampler, TDS (Wu et al. 2023, algorithm 1).

    The twist is psi_t = p(y given m(x_t)); the reverse kernel is tilted by exp(x_s . grad log
    psi_t(x_t)), which moves the mean of a Gaussian kernel by its variance times the gradient.
    Consistent. The plain twist (``widen=False``) is far too sure at high noise. Where the
    observation is linear-Gaussian its noise is widened by the spread of x_0 given x_t, ``sigma_y^2
    + spread_t |a_i|^2`` for row a_i of the operator; for a Gaussian observation of a nonlinear
    mean with up to 64 entries a_i is the mean's gradient at m(x_t). With either, the tilt is no
    longer than Polyak's step: where the operator's rows overlap, as a blur's do, the twist is surer
    than its rows, and the whole gradient would lead farther away from level to level. The twist of
    any other observation is tempered by how far its log likelihood varies around m(x_t), entry by
    entry, or as a whole where x has at most 8 dimensions and fewer than there are entries, Gaussian
    ones included (`smcdiff.proposals.twists.Tempering`).

    Cost: one network evaluation and one vector-Jacobian product a particle and step; where the
    twist is tempered, ``num_points + 1`` evaluations of the likelihood and as many of its gradient,
    and their memory (``batch_size`` of `SMC` bounds it); and once a run some hundreds to find the
    likelihood's largest value.

    Attributes:
        widen: make the twist less sure at high noise, as above.
        num_points: points about m(x_t) of a tempered twist; even.
    """

    widen: bool = static(default=True)
    num_points: int = static(default=NUM_POINTS)

    def __post_init__(self):
        if self.num_points < 2 or self.num_points % 2:
            raise InputError(
                f"Twisted: num_points is {self.num_points}; it must be even, 2 or more"
            )

    def prepare(self, key, model):
        """What the widened or tempered twist needs, or None for the plain one."""
        return widening(key, model, self.num_points) if self.widen else None

    def guide(self, model, shared, x, step):
        """The twist, with its gradient and the denoised mean from the same evaluation."""
        t = model.level(step)

        def twist(x):
            denoised = model.denoise(x, t)
            value, room = log_twist(model, shared, denoised, t)
            return value, (denoised, room)

        (value, (denoised, room)), gradient = jax.value_and_grad(twist, has_aux=True)(x)
        return value, (denoised, gradient, room)

    def law(self, model, shared, x, guide, step):
        """The tilted reverse kernel."""
        denoised, gradient, room = guide
        return model.transition(x, denoised, step).tilted(gradient, room)
