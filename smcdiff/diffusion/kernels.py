"""Reverse kernels: the law of x_s given x_t for s < t, as a `Mixture` on flat events.

With rho = exp(lambda_t - lambda_s) in [0, 1), the ratio of the two signal-to-noise ratios,

    x_s given x_t, x_0  ~  N(c x_t + k x_0, tau^2 I),
    tau^2 = eta^2 sigma_s^2 (1 - rho),  c = sqrt(sigma_s^2 - tau^2) / sigma_t,
    k = alpha_s - alpha_t c.

`DDIM` puts the denoised mean in the place of x_0 (Song, Meng and Ermon 2021, eq. 12; eta = 1 is
DDPM's ancestral step, eta = 0 the deterministic one). `Exact` integrates over x_0 given x_t, which
Gaussian and mixture priors can do in closed form.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import Module, static
from smcdiff.diffusion.denoising_error import DenoisingError
from smcdiff.diffusion.laws import Mixture
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError


def bridge(t: Level, s: Level, eta: float | Float[Array, ""] = 1.0) -> tuple[Array, Array, Array]:
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


def renoise(key: PRNGKeyArray, x: Float[Array, " d"], s: Level, t: Level) -> Float[Array, " d"]:
    """A draw of the forward process from level s up to level t."""
    shrink, scale = forward(s, t)
    return shrink * x + scale * jax.random.normal(key, x.shape, x.dtype)


@runtime_checkable
class Reversible(Protocol):
    """What a kernel asks of a prior; `smcdiff.priors.Prior` has it.

    Attributes:
        has_exact_reverse: whether `reverse` is known in closed form.
    """

    has_exact_reverse: ClassVar[bool]

    @property
    def denoising_error(self) -> DenoisingError | None:
        """The denoiser's error by noise level, where it is known."""
        ...

    def reverse(self, x: Float[Array, " d"], t: Level, s: Level) -> Mixture:
        """The exact law of x_s given x_t = x."""
        ...


class Kernel(Module):
    """Base class of reverse kernels.

    Attributes:
        ends_in_dirac: whether the step to the noise-free time has no density.
        uses_denoised: whether the law depends on the denoised mean that it is given.
    """

    ends_in_dirac: ClassVar[bool] = False
    uses_denoised: ClassVar[bool] = True

    @property
    def deterministic(self) -> bool:
        """Whether no step has a density, so that weights are impossible."""
        return False

    def check(self, prior: Reversible) -> None:
        """Raises ``InputError`` where the kernel does not serve this prior."""

    def __call__(
        self,
        prior: Reversible,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"] | None,
        t: Level,
        s: Level,
    ) -> Mixture:
        """The law of x_s given x_t = x; ``denoised`` is m(x, t), flat, where it is used."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__")


class DDIM(Kernel):
    """The DDIM-eta Gaussian kernel around the denoised mean.

    Attributes:
        eta: stochasticity in [0, 1]; 1 is DDPM ancestral sampling (default), 0 deterministic DDIM.
            Weights need eta > 0.
    """

    ends_in_dirac: ClassVar[bool] = True
    eta: float = static(default=1.0)

    def __post_init__(self):
        if not 0.0 <= self.eta <= 1.0:
            raise InputError(f"DDIM: eta is {self.eta}; it must lie in [0, 1]")

    @property
    def deterministic(self) -> bool:
        """True where eta = 0."""
        return self.eta == 0.0

    def __call__(
        self,
        prior: Reversible | None,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"],
        t: Level,
        s: Level,
    ) -> Mixture:
        """The law of x_s given x_t = x; ``denoised`` is m(x, t), flat."""
        from_noise, from_signal, tau2 = bridge(t, s, self.eta)
        return Mixture.isotropic_normal(from_noise * x + from_signal * denoised, tau2)


class AnalyticDPM(Kernel):
    """The ancestral step with the optimal isotropic variance (Bao et al. 2022, theorem 1).

    ``N(c x_t + k m, (tau^2 + k^2 v_t) I)``, where v_t is the mean posterior variance of a
    coordinate of x_0 given x_t: `DDIM` with eta = 1 forgets it, and is too narrow where steps are
    long. A learned prior has v_t from its training: it is the denoising error. The last step has a
    density, too.
    """

    def check(self, prior: Reversible) -> None:
        """Raises ``InputError`` unless the prior knows its denoising error."""
        if prior.denoising_error is None:
            raise InputError(
                f"kernels.AnalyticDPM needs the denoising error of the prior, which this"
                f" {type(prior).__name__} does not have; pass denoising_error to DiffusionPrior, or"
                " use kernels.DDIM()"
            )

    def __call__(
        self,
        prior: Reversible,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"],
        t: Level,
        s: Level,
    ) -> Mixture:
        """The law of x_s given x_t = x; ``denoised`` is m(x, t), flat."""
        assert prior.denoising_error is not None  # by `check`
        from_noise, from_signal, tau2 = bridge(t, s)
        variance = tau2 + from_signal**2 * prior.denoising_error.at(t)
        return Mixture.isotropic_normal(from_noise * x + from_signal * denoised, variance)


class EulerMaruyama(Kernel):
    """The Euler-Maruyama step of the reverse SDE (Song et al. 2021, eq. 6).

    For the Ornstein-Uhlenbeck process, gamma = log(alpha_s / alpha_t) being the step in time,

        x_s = x_t + gamma (x_t + 2 score(x_t, t)) + sqrt(2 gamma) z.

    For other schedules the increments of drift and diffusion are integrated over the step. Its
    error is of first order in gamma: it wants small steps, even where `DDIM`, which integrates the
    linear part exactly, does not; ``grid=schedules.UniformTime()`` is the textbook's.
    """

    def __call__(
        self,
        prior: Reversible | None,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"],
        t: Level,
        s: Level,
    ) -> Mixture:
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
        return Mixture.isotropic_normal(x + gamma * x + variance * score, variance)


class Exact(Kernel):
    """The exact law of x_s given x_t, for `Gaussian` and `GaussianMixture` priors.

    There is no discretisation error: any number of steps, however small, targets the true prior.
    """

    uses_denoised: ClassVar[bool] = False

    def check(self, prior: Reversible) -> None:
        """Raises ``InputError`` unless the prior knows its reverse kernel in closed form."""
        if not prior.has_exact_reverse:
            raise InputError(
                f"kernels.Exact needs a Gaussian or GaussianMixture prior, not "
                f"{type(prior).__name__}; use kernels.DDIM()"
            )

    def __call__(
        self,
        prior: Reversible,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"] | None,
        t: Level,
        s: Level,
    ) -> Mixture:
        """The law of x_s given x_t = x."""
        return prior.reverse(x, t, s)
