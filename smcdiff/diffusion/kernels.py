"""Reverse kernels: the law of x_s given x_t for s < t, as a `Transition` on flat events.

With rho = exp(lambda_t - lambda_s) in [0, 1), the ratio of the two signal-to-noise ratios,

    x_s given x_t, x_0  ~  N(c x_t + k x_0, tau^2 I),
    tau^2 = eta^2 sigma_s^2 (1 - rho),  c = sqrt(sigma_s^2 - tau^2) / sigma_t,
    k = alpha_s - alpha_t c.

`DDIM` puts the denoised mean in the place of x_0 (Song, Meng and Ermon 2021, eq. 12; eta = 1 is
DDPM's ancestral step, eta = 0 the deterministic one). `Exact` integrates over x_0 given x_t, which
Gaussian and mixture priors can do in closed form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base.module import Module, static
from smcdiff.diffusion.laws.mixture import Transition
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError

if TYPE_CHECKING:
    from smcdiff.priors.base import DiffusionDistribution


def bridge(t: Level, s: Level, eta: float | Array = 1.0) -> tuple[Array, Array, Array]:
    """Coefficients of x_s given x_t and x_0: ``N(c x_t + k x_0, tau2 I)``.

    Args:
        t: the noisier level.
        s: the cleaner level; s may be noise-free.
        eta: stochasticity in [0, 1].

    Returns:
        (c, k, tau2), scalars.
    """
    change = t.log_snr - s.log_snr
    tau2 = -(eta**2) * s.sigma**2 * jnp.expm1(change)
    # sigma_s^2 - tau^2, which would cancel where the step is long.
    from_noise = s.sigma * jnp.sqrt(1.0 - eta**2 + eta**2 * jnp.exp(change)) / t.sigma
    return from_noise, s.alpha - t.alpha * from_noise, tau2


def forward(s: Level, t: Level) -> tuple[Array, Array]:
    """Coefficients of x_t given x_s: ``N(shrink x_s, scale^2 I)``.

    Args:
        s: the cleaner level; it may be noise-free.
        t: the noisier level.

    Returns:
        (shrink, scale), scalars.
    """
    shrink = t.alpha / s.alpha
    # sigma_t^2 (1 - SNR_t / SNR_s), never negative.
    return shrink, t.sigma * jnp.sqrt(-jnp.expm1(jnp.minimum(t.log_snr - s.log_snr, 0.0)))


class Kernel(Protocol):
    """A reverse kernel.

    Attributes:
        ends_in_dirac: whether the step to the noise-free time has no density.
        deterministic: whether no step has a density, so that weights are impossible.
        uses_denoised: whether the law depends on the denoised mean that it is given.
    """

    @property
    def ends_in_dirac(self) -> bool:
        """Whether the step to the noise-free time has no density."""
        ...

    @property
    def deterministic(self) -> bool:
        """Whether no step has a density."""
        ...

    @property
    def uses_denoised(self) -> bool:
        """Whether the law depends on the denoised mean that it is given."""
        ...

    def check(self, prior: DiffusionDistribution) -> None:
        """Raises ``InputError`` where the kernel does not serve this prior."""
        ...

    def __call__(
        self,
        prior: DiffusionDistribution,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"] | None,
        t: Level,
        s: Level,
    ) -> Transition:
        """The law of x_s given x_t = x; ``denoised`` is m(x, t), flat, where it is used."""
        ...


class DDIM(Module):
    """The DDIM-eta Gaussian kernel around the denoised mean.

    Attributes:
        eta: stochasticity in [0, 1]; 1 is DDPM ancestral sampling (default), 0 deterministic DDIM.
            Weights need eta > 0.
        clip: interval to which the denoised mean is clipped, in data units, or None. The clipped
            mean is the mean of the density too, so weights stay correct.
    """

    ends_in_dirac = True
    uses_denoised = True
    eta: float = static(default=1.0)
    clip: tuple[float, float] | None = static(default=None)

    def __post_init__(self):
        if not 0.0 <= self.eta <= 1.0:
            raise InputError(f"DDIM: eta is {self.eta}; it must lie in [0, 1]")

    @property
    def deterministic(self) -> bool:
        """True where eta = 0."""
        return self.eta == 0.0

    def check(self, prior: DiffusionDistribution) -> None:
        """Serves every prior."""

    def __call__(self, prior, x, denoised, t: Level, s: Level) -> Transition:
        """The law of x_s given x_t = x; ``denoised`` is m(x, t), flat."""
        from_noise, from_signal, tau2 = bridge(t, s, self.eta)
        if self.clip is not None:
            denoised = jnp.clip(denoised, *self.clip)
        # Where the mean was clipped, eps_hat follows it: c x + k m is unchanged in form.
        mean = from_noise * x + from_signal * denoised
        return Transition.isotropic_normal(mean, tau2)


class AnalyticDPM(Module):
    """The ancestral step with the optimal isotropic variance (Bao et al. 2022, theorem 1).

    ``N(c x_t + k m, (tau^2 + k^2 v_t) I)``, where v_t is the mean posterior variance of a
    coordinate of x_0 given x_t: `DDIM` with eta = 1 forgets it, and is too narrow where steps are
    long. A learned prior has v_t from its training: it is the denoising error. The last step has a
    density, too.
    """

    ends_in_dirac = False
    deterministic = False
    uses_denoised = True

    def check(self, prior: DiffusionDistribution) -> None:
        """Raises ``InputError`` unless the prior knows its denoising error."""
        if getattr(prior, "denoising_error", None) is None:
            raise InputError(
                f"kernels.AnalyticDPM needs the denoising error of the prior, which this"
                f" {type(prior).__name__} does not have; pass denoising_error to DiffusionPrior, or"
                " use kernels.DDIM()"
            )

    def __call__(self, prior, x, denoised, t: Level, s: Level) -> Transition:
        """The law of x_s given x_t = x; ``denoised`` is m(x, t), flat."""
        from_noise, from_signal, tau2 = bridge(t, s)
        mean = from_noise * x + from_signal * denoised
        variance = tau2 + from_signal**2 * prior.denoising_error.at(t)
        return Transition.isotropic_normal(mean, variance)


class EulerMaruyama(Module):
    """The Euler-Maruyama step of the reverse SDE (Song et al. 2021, eq. 6).

    For the Ornstein-Uhlenbeck process, gamma = log(alpha_s / alpha_t) being the step in time,

        x_s = x_t + gamma (x_t + 2 score(x_t, t)) + sqrt(2 gamma) z.

    For other schedules the increments of drift and diffusion are integrated over the step. Its
    error is of first order in gamma: it wants small steps, even where `DDIM`, which integrates the
    linear part exactly, does not; ``grid=schedules.UniformTime()`` is the textbook's.
    """

    ends_in_dirac = False
    deterministic = False
    uses_denoised = True

    def check(self, prior: DiffusionDistribution) -> None:
        """Serves every prior."""

    def __call__(self, prior, x, denoised, t: Level, s: Level) -> Transition:
        """The law of x_s given x_t = x; ``denoised`` is m(x, t), flat."""
        # From d(alpha^2 + sigma^2) = g^2 dt - 2 gamma (alpha^2 + sigma^2): 2 gamma where that sum
        # is 1, sigma_t^2 - sigma_s^2 where alpha is.
        total, left = t.alpha**2 + t.sigma**2, s.alpha**2 + s.sigma**2
        # alpha^2 is the sum times sigmoid(log-SNR): between two alphas close to 1 the ratio would
        # lose its digits, and so would the difference of two sums that are equal but for rounding.
        equal = jnp.abs(left - total) < 1e-5 * total
        change = jnp.where(equal, 0.0, total - left)
        gamma = jax.nn.log_sigmoid(s.log_snr) - jax.nn.log_sigmoid(t.log_snr)
        gamma = 0.5 * (gamma - jnp.where(equal, 0.0, jnp.log(total / left)))
        variance = change + 2.0 * gamma * total
        score = (t.alpha * denoised - x) / t.sigma**2
        mean = x + gamma * x + variance * score
        return Transition.isotropic_normal(mean, variance)


class Exact(Module):
    """The exact law of x_s given x_t, for `Gaussian` and `GaussianMixture` priors.

    There is no discretisation error: any number of steps, however small, targets the true prior.
    """

    ends_in_dirac = False
    deterministic = False
    uses_denoised = False

    def check(self, prior: DiffusionDistribution) -> None:
        """Raises ``InputError`` unless the prior knows its reverse kernel in closed form."""
        if not hasattr(prior, "reverse"):
            raise InputError(
                f"kernels.Exact needs a Gaussian or GaussianMixture prior, not "
                f"{type(prior).__name__}; use kernels.DDIM()"
            )

    def __call__(self, prior, x, denoised, t: Level, s: Level) -> Transition:
        """The law of x_s given x_t = x."""
        return prior.reverse(x, t, s)
