"""RePaint (Lugmayr et al. 2022): replacement with jumps back to higher noise."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import static
from smcdiff.diffusion import kernels
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.problem import ReverseModel
from smcdiff.proposals._held import Holding
from smcdiff.proposals._shared_path import SharedPath
from smcdiff.proposals.base import Draw
from smcdiff.proposals.paths import SMCDiff
from smcdiff.proposals.replacement import Replacement
from smcdiff.twists import Evaluation


class RePaint(Holding):
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

    Cost: one network evaluation per particle and step, and at a jump (repeats - 1) x jump more
    (with weights on, repeats - 1).

    Attributes:
        repeats: r >= 1; 1 is no jump.
        jump: j >= 1, in steps of the grid.
    """

    masks_only: ClassVar[bool] = True
    repeats: int = static(default=10)
    jump: int = static(default=1)

    def __post_init__(self):
        for name in ("repeats", "jump"):
            if getattr(self, name) < 1:
                raise InputError(f"RePaint: {name} is {getattr(self, name)}; it must be at least 1")

    def counts_chains_alike(self, model: ReverseModel) -> bool:
        """As `SMCDiff` with weights on."""
        return self._base(model).counts_chains_alike(model)

    @staticmethod
    def _base(model: ReverseModel) -> Replacement | SMCDiff:
        return SMCDiff() if model.weighted else Replacement()

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` unless single entries are observed and the jump fits the grid."""
        super().check(model)
        if self.jump >= model.num_steps:
            raise InputError(
                f"RePaint: jump is {self.jump}; it must be below num_steps = {model.num_steps}"
            )

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> Any:
        """The observed entries, and their path where weights are on."""
        return self._base(model).prepare(key, model)

    def start(self, key: PRNGKeyArray, model: ReverseModel, prepared: Any) -> Draw:
        """As `Replacement` or `SMCDiff`."""
        return self._base(model).start(key, model, prepared)

    def evaluate(
        self, model: ReverseModel, prepared: Any, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """As `Replacement` or `SMCDiff`; one network evaluation."""
        return self._base(model).evaluate(model, prepared, x, t)

    def final(self, model: ReverseModel, prepared: Any, x: Float[Array, " d"]) -> Float[Array, ""]:
        """As `Replacement` or `SMCDiff`."""
        return self._base(model).final(model, prepared, x)

    def propose(
        self,
        key: PRNGKeyArray,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Draw:
        """A step down, and the jumps of the level that it reaches."""
        key_step, key_jump = jax.random.split(key)
        draw = self._base(model).propose(key_step, model, prepared, x, evaluation, t, s)
        if self.repeats == 1:
            return draw
        place = model.num_steps - 1 - s.index  # counted from the first noisy level
        jumps = (place >= 0) & (place % self.jump == 0) & (place < model.num_steps - self.jump)
        move = self.gibbs if model.weighted else self._repaint

        def again(x):
            keys = jax.random.split(key_jump, self.repeats - 1)
            x, _ = jax.lax.scan(lambda x, k: (move(k, model, prepared, x, s), None), x, keys)
            return x

        return Draw(jax.lax.cond(jumps, again, lambda x: x, draw.x), draw.log_ratio)

    def _repaint(
        self, key: PRNGKeyArray, model: ReverseModel, prepared: Any, x: Float[Array, " d"], s: Level
    ) -> Float[Array, " d"]:
        """Up ``jump`` levels from s and down again, step by step, with fresh known parts."""
        base, keys = self._base(model), jax.random.split(key, self.jump + 1)
        top = s.index - self.jump
        x = kernels.renoise(keys[0], x, s, model.level(top))

        def down(x, inputs):
            key, back = inputs
            t, next_level = model.level(top + back), model.level(top + back + 1)
            evaluation = base.evaluate(model, prepared, x, t)
            return base.propose(key, model, prepared, x, evaluation, t, next_level).x, None

        return jax.lax.scan(down, x, (keys[1:], jnp.arange(self.jump)))[0]

    def gibbs(
        self,
        key: PRNGKeyArray,
        model: ReverseModel,
        prepared: SharedPath,
        x: Float[Array, " d"],
        s: Level,
    ) -> Float[Array, " d"]:
        """Up by the forward process and down in one step, both given the path."""
        key_up, key_down = jax.random.split(key)
        t = model.level(s.index - self.jump)
        noisy = prepared.renoise(key_up, x, s, t)
        down = model.transition(noisy, model.denoise_for_kernel(noisy, t), t, s)
        along = prepared.condition_step(down, noisy, t, s)
        return prepared.put_on(along.law.sample(key_down), s)
