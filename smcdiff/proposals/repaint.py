"""RePaint (Lugmayr et al. 2022): replacement with jumps back to higher noise."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import static
from smcdiff.diffusion import kernels
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.proposals.base import Proposal, ReverseModel
from smcdiff.proposals.linear import require_selection
from smcdiff.proposals.replacement import Replacement, SMCDiff


def renoise(key: PRNGKeyArray, x: Float[Array, " d"], s: Level, t: Level) -> Float[Array, " d"]:
    """A draw of the forward process from level s up to level t."""
    shrink, scale = kernels.forward(s, t)
    return shrink * x + scale * jax.random.normal(key, x.shape, x.dtype)


class RePaint(Proposal):
    """Replacement with resampling: noise the state again and denoise it, so that parts agree.

    After the step that reaches level k (counted from the clean end, the first noisy level is 0),
    if k is a multiple of ``jump`` and k < num_steps - jump, the state is noised up by ``jump``
    levels and brought down again, ``repeats - 1`` times: the published schedule (Lugmayr et al.
    2022, algorithm 1 and appendix B, r = repeats, j = jump; they take 10 and 10 of 250 steps).

    With weights off it is the published sampler: the known part is drawn afresh from
    N(alpha y, sigma^2 + alpha^2 sigma_y^2) on the way down. With weights on it is `SMCDiff`, and
    each jump moves the unknown part given its path: up ``jump`` levels by the forward process, down
    in one reverse step. That is a Gibbs move, and leaves the weights as they are, if the reverse
    kernel is exact (`smcdiff.kernels.Exact`); otherwise it is approximate.

    Cost: one network evaluation a particle and step, and at a jump (repeats - 1) x jump more (with
    weights on, repeats - 1).

    Attributes:
        repeats: r >= 1; 1 is no jump.
        jump: j >= 1, in steps of the grid.
    """

    path_weighted: ClassVar[bool] = True
    masks_only: ClassVar[bool] = True
    repeats: int = static(default=10)
    jump: int = static(default=1)

    def __post_init__(self):
        for name in ("repeats", "jump"):
            if getattr(self, name) < 1:
                raise InputError(f"RePaint: {name} is {getattr(self, name)}; it must be at least 1")

    @staticmethod
    def _base(model: ReverseModel) -> Replacement | SMCDiff:
        return SMCDiff() if model.weighted else Replacement()

    def takes_exact(self, weighted):
        """Always."""
        return True

    def check(self, model):
        """Raises ``InputError`` unless single entries are observed and the jump fits the grid."""
        require_selection(model.problem, "RePaint")
        if self.jump >= model.num_steps:
            raise InputError(
                f"RePaint: jump is {self.jump}; it must be below num_steps = {model.num_steps}"
            )

    def prepare(self, key, model):
        """The observed entries, and their path where weights are on."""
        return self._base(model).prepare(key, model)

    def start(self, key, model, shared):
        """As `Replacement` or `SMCDiff`."""
        return self._base(model).start(key, model, shared)

    def guide(self, model, shared, x, step):
        """As `Replacement` or `SMCDiff`; one network evaluation."""
        return self._base(model).guide(model, shared, x, step)

    def final(self, model, shared, x):
        """As `Replacement` or `SMCDiff`."""
        return self._base(model).final(model, shared, x)

    def propose(self, key, model, shared, x, guide, step):
        """A step down, and the jumps of the level that it reaches."""
        key_step, key_jump = jax.random.split(key)
        x, log_ratio = self._base(model).propose(key_step, model, shared, x, guide, step)
        if self.repeats == 1:
            return x, log_ratio
        level = model.num_steps - 2 - step  # counted from the first noisy one
        jumps = (level >= 0) & (level % self.jump == 0) & (level < model.num_steps - self.jump)
        move = self._gibbs if model.weighted else self._repaint

        def again(x):
            keys = jax.random.split(key_jump, self.repeats - 1)
            x, _ = jax.lax.scan(lambda x, k: (move(k, model, shared, x, step + 1), None), x, keys)
            return x

        return jax.lax.cond(jumps, again, lambda x: x, x), log_ratio

    def _repaint(self, key, model: ReverseModel, shared, x, step):
        """Up ``jump`` levels from ``step`` and down again, step by step, with fresh known parts."""
        base, keys = self._base(model), jax.random.split(key, self.jump + 1)
        top = step - self.jump
        x = renoise(keys[0], x, model.level(step), model.level(top))

        def down(x, inputs):
            key, back = inputs
            guide = model.denoise_for_kernel(x, model.level(top + back))
            return base.propose(key, model, shared, x, guide, top + back)[0], None

        return jax.lax.scan(down, x, (keys[1:], jnp.arange(self.jump)))[0]

    def _gibbs(self, key, model: ReverseModel, shared, x, step):
        """Up by the forward process, down in one step, with the known part on its path."""
        key_up, key_down = jax.random.split(key)
        s, t = model.level(step), model.level(step - self.jump)
        observed = shared.chosen.held
        known = SMCDiff.along_path(model, shared, x, step, step - self.jump)
        noisy = jnp.where(observed, known, renoise(key_up, x, s, t))
        denoised = model.denoise_for_kernel(noisy, t)
        down = model.kernel(model.problem.prior, noisy, denoised, t, s)
        return down.sample_fixed(key_down, observed, x)[0]
