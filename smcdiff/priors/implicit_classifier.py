"""The classifier that a prior and a conditional prior imply, by denoising alone.

With x_s = alpha_s y and y = u + sqrt(tau) eps, where u = x_t / alpha_t and tau is what the variance
of the noise grows by, all in data units, the heat equation and Stein's identity give

    d/dtau E[log p_s(y)] = E |grad log p_s(y) + eps / sqrt(tau)|^2 / 2 - d / (2 tau),

so that the logarithm of a ratio of two densities is an integral over noise levels of the difference
of such errors. For clean x it is that of two denoising errors, half of
``E |x - m(x_s)|^2 - E |x - m(x_s, c)|^2`` over the signal-to-noise ratio (Guo et al. 2005; Kong et
al. 2023, eq. 9; classifiers of it: Li et al. 2023).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import gammaincinv

from smcdiff.base._numbers import Scalar
from smcdiff.base.module import Module, set_fields
from smcdiff.diffusion.schedules import Level, Schedule
from smcdiff.errors import InputError
from smcdiff.priors.base import Prior


class ImplicitClassifier(Module):
    """log p(c given x) - log p(c) = log p(x given c) - log p(x), of two diffusion priors.

    It makes an observation of a condition that has no likelihood but its prior, a caption::

        likelihood = priors.ImplicitClassifier(prior.given("two red circles"), prior)

        def model():
            x = numpyro.sample("x", prior)
            numpyro.factor("caption", likelihood(x))

    An integral over noise levels by Gauss and Legendre, with noise that is fixed: a deterministic
    function of x, with derivatives. At a time t it is that of p_t, which is the optimal twist of
    the model above: ``twists.Classifier(likelihood)``, or ``proposals.ClassifierGuidance``. The
    noise comes in orthogonal pairs of opposite sign: with as many pairs as x has entries the mean
    over it is exact for Gaussians, with fewer its error is that of a random probe.

    Cost: ``4 num_levels num_pairs`` network evaluations for a value. A twist need not be exact, and
    may have fewer levels than the likelihood.

    Attributes:
        conditional: the prior given the condition, without guidance: ``prior.given(condition)``.
        prior: the prior, on the same schedule.
        directions: (num_levels, num_pairs, *event), the noise.
    """

    conditional: Prior
    prior: Prior
    directions: Float[Array, "levels pairs *event"]

    def __init__(
        self,
        conditional: Prior,
        prior: Prior,
        *,
        num_levels: int = 16,
        num_pairs: int = 1,
        seed: int = 0,
    ):
        """Draws the noise.

        Args:
            conditional: the prior given the condition, without guidance.
            prior: the prior.
            num_levels: nodes of the integral over log-SNR.
            num_pairs: pairs of noise at each.
            seed: of the noise.

        Raises:
            InputError: priors of other shapes or schedules, or no level or pair.
        """
        _check(conditional, prior)
        if num_levels < 2 or num_pairs < 1:
            raise InputError(
                f"ImplicitClassifier: num_levels is {num_levels} and num_pairs {num_pairs}; they"
                " must be at least 2 and 1"
            )
        directions = _orthogonal(num_levels, num_pairs, prior.size, seed)
        directions = directions.reshape(num_levels, num_pairs, *prior.event_shape)
        set_fields(self, conditional=conditional, prior=prior, directions=directions)

    @property
    def schedule(self) -> Schedule:
        """The noise schedule of both priors."""
        return self.prior.schedule

    def __call__(self, x: Float[Array, "*event"], t: Scalar | None = None) -> Float[Array, ""]:
        """The log ratio, in nat, of p(. given c) and p, or of their noisy versions p_t.

        Args:
            x: one event; with t a noisy one, x_t.
            t: in the schedule's time; None for clean x.
        """
        level = Level.clean() if t is None else self.schedule.level(t)
        log_snrs, weights = self._nodes(level)
        clean, variance = x / level.alpha, jnp.exp(-level.log_snr)

        @jax.checkpoint
        def add(total, node):
            log_snr, weight, noise = node
            return total + weight * self._integrand(clean, variance, log_snr, noise), None

        inputs = log_snrs.astype(x.dtype), weights.astype(x.dtype), self.directions.astype(x.dtype)
        total, _ = jax.lax.scan(add, self._where_it_starts(clean, variance), inputs)
        return total

    def _nodes(self, level: Level) -> tuple[Float[Array, " levels"], Float[Array, " levels"]]:
        """Log-SNRs and weights of the integral from the most noise to a level."""
        least_noisy = self.schedule.level(self.schedule.t_min).log_snr
        low, high = self.schedule.noisiest.log_snr, jnp.minimum(level.log_snr, least_noisy)
        nodes, weights = np.polynomial.legendre.leggauss(len(self.directions) - 1)
        half = 0.5 * (high - low)
        log_snrs = 0.5 * (high + low) + half * jnp.asarray(nodes)
        # What lies beyond the least noise of the schedule falls as the noise variance does, so
        # that it is the integrand's last value times one.
        beyond = jnp.where(level.is_clean, 1.0, 0.0)
        return jnp.append(log_snrs, high), jnp.append(half * jnp.asarray(weights), beyond)

    def _integrand(
        self,
        clean: Float[Array, "*event"],
        variance: Float[Array, ""],
        log_snr: Float[Array, ""],
        directions: Float[Array, " p *event"],
    ) -> Float[Array, ""]:
        """Of the integral over log-SNR; ``variance`` is that of the noise in ``clean`` already."""
        level = self.schedule.level(self.schedule.time(log_snr))
        noise = jnp.exp(-log_snr)
        grown = jnp.maximum(noise - variance, jnp.finfo(clean.dtype).tiny)

        def at(step):
            y = clean + step
            plain, given = (
                prior.posterior_mean(level.alpha * y, level.time)
                for prior in (self.prior, self.conditional)
            )
            apart = (plain + given - 2.0 * y) / noise + 2.0 * step / grown
            return -0.5 * jnp.sum((given - plain) * apart)

        steps = jnp.sqrt(grown) * jnp.concatenate([directions, -directions])
        return jnp.mean(jax.vmap(at)(steps))

    def _where_it_starts(
        self, clean: Float[Array, "*event"], variance: Float[Array, ""]
    ) -> Float[Array, ""]:
        """The log ratio at the most noise, by the priors' terminal laws, which may be one."""
        level, directions = self.schedule.noisiest, self.directions[0].astype(clean.dtype)
        grown = jnp.maximum(jnp.exp(-level.log_snr) - variance, 0.0)
        laws = [prior.terminal() for prior in (self.conditional, self.prior)]

        def at(step):
            given, plain = (law.log_prob(jnp.ravel(level.alpha * (clean + step))) for law in laws)
            return given - plain

        return jnp.mean(jax.vmap(at)(jnp.sqrt(grown) * jnp.concatenate([directions, -directions])))


def _check(conditional: Prior, prior: Prior) -> None:
    """Raises ``InputError`` unless both have one shape and one schedule."""
    if conditional.event_shape != prior.event_shape:
        raise InputError(
            f"ImplicitClassifier: events of the conditional prior have shape"
            f" {conditional.event_shape}, those of the prior {prior.event_shape}"
        )
    times = jnp.linspace(prior.schedule.t_min, prior.schedule.t_max, 9)
    given, plain = (p.schedule.level(times).log_snr for p in (conditional, prior))
    if not jnp.allclose(given, plain, rtol=1e-3, atol=1e-3):
        raise InputError(
            "ImplicitClassifier: the conditional prior has another noise schedule than the prior"
        )


def _orthogonal(num_levels: int, num_pairs: int, size: int, seed: int) -> Float[Array, "l p d"]:
    """Directions, in blocks of up to d that are orthogonal to one another and have one norm.

    The norms of the blocks are the middles of equal shares of a Gaussian's, scaled so that their
    mean square is d: a single block is of norm sqrt(d), and many are as good as Gaussian.
    """
    num_blocks = -(-num_pairs // size)
    shape = (num_levels, num_blocks, size, min(num_pairs, size))
    bases, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(seed), shape))
    squares = 2.0 * gammaincinv(0.5 * size, (np.arange(num_blocks) + 0.5) / num_blocks)
    norms = jnp.asarray(np.sqrt(size * squares / squares.mean()), bases.dtype)
    rows = jnp.einsum("b,lbdk->lbkd", norms, bases)
    return rows.reshape(num_levels, -1, size)[:, :num_pairs]
