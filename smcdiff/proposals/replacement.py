"""Replacement and SMC-Diff: put a noised copy of the observed entries into the particles.

Both observe single entries of x (a mask). The imputed clean entries are y + noise of the
observation's own size: the law of the observed part of x_0 given y under a flat prior; y itself
where it is observed exactly. With weights on an entry whose noise is more than half the prior's
scale is weighed and not overwritten, for such a draw would be far from any x_0.
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from smcdiff.base.gaussian import LOG_2PI
from smcdiff.base.module import Module
from smcdiff.diffusion import kernels
from smcdiff.proposals.base import Proposal, ReverseModel
from smcdiff.proposals.linear import Selection, require_selection, selection, weak_guide


def _log_normal(x, mean, scale, where) -> Float[Array, ""]:
    terms = -0.5 * ((x - mean) / scale) ** 2 - jnp.log(scale) - 0.5 * LOG_2PI
    return jnp.sum(jnp.where(where, terms, 0.0))


def _keep_if(condition, free, fixed):
    """The free draw with zero log weight, where the kernel has no density to weigh."""
    return jnp.where(condition, free, fixed[0]), jnp.where(condition, 0.0, fixed[1])


class _Masked(Proposal):
    """What the two share: a selection, and the denoised mean as guide."""

    path_weighted: ClassVar[bool] = True
    masks_only: ClassVar[bool] = True

    def takes_exact(self, weighted):
        """Always."""
        return True

    def check(self, model):
        """Raises ``InputError`` unless single entries are observed."""
        require_selection(model.problem, type(self).__name__)

    def _step(self, key, model, chosen: Selection, x, guide, step, values):
        """Fixes the observed entries to ``values``, where that has a density or none is wanted."""
        transition = model.transition(x, guide, step)
        fixed = transition.sample_fixed(key, chosen.held, values)
        return _keep_if(model.no_density(step), transition.sample(key), fixed)


class Replacement(_Masked):
    """The replacement method: observed entries are overwritten at every step.

    The observed part of x_s is drawn afresh from N(alpha_s y, sigma_s^2 + alpha_s^2 sigma_y^2), the
    rest from the reverse kernel (Song et al. 2021, appendix I.2, where sigma_y = 0). A heuristic
    with weights off: the rest never learns whether it fits the observed part. With weights on the
    engine's importance weights make it consistent, with a variance that grows with the noise of y,
    since entries drawn afresh at every level lie as far apart; `SMCDiff` is the same idea with a
    shared path, and better. An exact observation is what it was published for.

    Cost: one network evaluation a particle and step.
    """

    def prepare(self, key, model):
        """The observed entries."""
        return selection(model)

    @staticmethod
    def _impute(key, chosen: Selection, level):
        scale = jnp.sqrt(level.sigma**2 + (level.alpha * chosen.scale) ** 2)
        mean = level.alpha * chosen.values
        values = mean + scale * jax.random.normal(key, mean.shape, mean.dtype)
        # Clean entries of an exact observation are what they are.
        random = scale > 0.0
        scale = jnp.where(random, scale, 1.0)
        return values, _log_normal(values, mean, scale, chosen.held & random)

    def start(self, key, model, shared):
        """The observed entries noised to the first level, the rest from the terminal law."""
        key_impute, key_rest = jax.random.split(key)
        values, log_q = self._impute(key_impute, shared, model.level(0))
        x, log_p = model.problem.prior.terminal().sample_fixed(key_rest, shared.held, values)
        return x, log_p - log_q

    def guide(self, model, shared, x, step):
        """No twist; one network evaluation."""
        return jnp.zeros(()), model.denoise_for_kernel(x, model.level(step))

    def propose(self, key, model, shared, x, guide, step):
        """The observed entries noised to the next level, the rest from the reverse kernel."""
        key_impute, key_rest = jax.random.split(key)
        values, log_q = self._impute(key_impute, shared, model.level(step + 1))
        x, log_p = self._step(key_rest, model, shared, x, guide, step, values)
        return x, log_p - jnp.where(model.no_density(step), 0.0, log_q)

    def final(self, model, shared, x):
        """The log likelihood; of an exact observation the change of variables from x to y."""
        return shared.log_constant if model.problem.noise_free else model.log_likelihood(x)


def forward_noise(
    key: PRNGKeyArray, model: ReverseModel, used: Bool[Array, " n"]
) -> tuple[Float[Array, "levels n"], Float[Array, " steps"]]:
    """The noise of one forward path of n coordinates: x_t = alpha_t x_0 + noise_t.

    Args:
        key: random key.
        model: the reverse model, for its levels.
        used: (n,) coordinates that count in the density.

    Returns:
        The noise at every level, (num_steps + 1, n), the last zero; and the log density of each
        level given the one after it, (num_steps,).
    """
    draws = jax.random.normal(key, (model.num_steps, used.shape[0]))

    def forward(noise, step):
        shrink, scale = kernels.forward(model.level(step + 1), model.level(step))
        noisier = shrink * noise + scale * draws[step]
        return noisier, (noisier, _log_normal(noisier, shrink * noise, scale, used))

    clean = jnp.zeros(used.shape)
    steps = jnp.arange(model.num_steps)
    _, (path, log_forward) = jax.lax.scan(forward, clean, steps, reverse=True)
    return jnp.concatenate([path, clean[None]]), log_forward


class _Path(Module):
    """The noise of one forward path of the observed entries, shared by the particles of a chain.

    Attributes:
        chosen: the observed entries.
        noise: (num_steps + 1, d); a particle whose clean entries are z is at alpha_t z + noise_t.
        log_forward: (num_steps,) log density of level n given level n + 1.
    """

    chosen: Selection
    noise: Float[Array, "levels d"]
    log_forward: Float[Array, " steps"]


class SMCDiff(_Masked):
    """SMC-Diff (Trippe et al. 2022, algorithm 1): replacement with the weights p(y_s given x_t).

    The noise of one forward path of the observed entries is drawn for each chain and shared by its
    particles; they are weighted by how well they predict the path. Consistent for an ideal reverse
    kernel (`smcdiff.kernels.Exact`), as published where the observation is exact. With observation
    noise each particle imputes clean entries y + noise of its own once and keeps them. With weights
    off it is `Replacement` along a path.

    Cost: one network evaluation a particle and step.
    """

    def prepare(self, key, model):
        """The noise of a forward path of the observed entries."""
        chosen = selection(model)
        return _Path(chosen, *forward_noise(key, model, chosen.held))

    def start(self, key, model, shared):
        """The path's end; weighed by the terminal density of the observed entries."""
        key_clean, key_rest = jax.random.split(key)
        chosen = shared.chosen
        clean = chosen.values + chosen.scale * jax.random.normal(key_clean, chosen.values.shape)
        values = model.level(0).alpha * clean + shared.noise[0]
        terminal = model.problem.prior.terminal()
        return terminal.sample_fixed(key_rest, chosen.held, values)

    def guide(self, model, shared, x, step):
        """The twist of the entries that are not held; one network evaluation."""
        return weak_guide(model, x, step, shared.chosen.log_weak)

    @staticmethod
    def along_path(model: ReverseModel, shared: _Path, x, step, other) -> Float[Array, " d"]:
        """Where the observed entries of a particle that is at x after ``step`` are at ``other``."""
        clean = shared.chosen.values
        if not model.problem.noise_free:
            # By its own small noise: what x itself rounds off would add up from step to step.
            alpha = model.level(step).alpha
            clean = clean - (alpha * clean + shared.noise[step] - x) / alpha
        return model.level(other).alpha * clean + shared.noise[other]

    def propose(self, key, model, shared, x, guide, step):
        """The path's next point, the rest from the reverse kernel; weight p(y_s given x_t)."""
        values = self.along_path(model, shared, x, step, step + 1)
        x, log_p = self._step(key, model, shared.chosen, x, guide, step, values)
        # Where the last step is a Dirac the path was weighed down to the last noisy level; what is
        # left is the change of variables from alpha y to y.
        jacobian = -jnp.sum(shared.chosen.held) * jnp.log(model.level(step).alpha)
        log_q = jnp.where(model.no_density(step), jacobian, shared.log_forward[step])
        return x, log_p - log_q

    def final(self, model, shared, x):
        """The likelihood of y over the law that imputed the clean entries of x."""
        return shared.chosen.log_weak(x, 0.0)
