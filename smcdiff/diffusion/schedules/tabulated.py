"""The schedule of a discrete DDPM, from its own array of betas."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smcdiff.base._numbers import Scalar, Values
from smcdiff.diffusion.schedules.base import Schedule
from smcdiff.errors import InputError


class Tabulated(Schedule):
    """A variance-preserving schedule through the levels of a discrete one; made by `from_betas`.

    Level n of the N of a DDPM (n = 0 is the cleanest, as its arrays have it) is at time t = (n + 1)
    / N, so that a network that was trained on indices wants n = N t - 1, which `index` gives.
    Between levels beta is constant, so log(alpha-bar) is linear in t.

    Attributes:
        log_alpha_bar: (N,) log of the cumulative product of 1 - beta, decreasing.
        t_min: smallest noisy time: that of level 0, 1 / N.
        t_max: horizon: that of the last level, 1.
    """

    log_alpha_bar: Float[Array, " n"]
    t_min: Scalar = dataclasses.field(kw_only=True)
    t_max: Scalar = dataclasses.field(default=1.0, kw_only=True)

    def index(self, t: Values) -> Float[Array, "*steps"]:
        """The DDPM's index of a time, n = N t - 1, a float: round it where the network must."""
        return self.log_alpha_bar.shape[0] * jnp.asarray(t) - 1.0

    def _table(self) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        """Times and log(alpha-bar), time 0 included."""
        count = self.log_alpha_bar.shape[0]
        times = jnp.arange(count + 1, dtype=self.log_alpha_bar.dtype) / count
        return times, jnp.concatenate([jnp.zeros(1, times.dtype), self.log_alpha_bar])

    def alpha(self, t: Values) -> Float[Array, "*steps"]:
        """Signal scale sqrt(alpha-bar)."""
        return jnp.exp(0.5 * jnp.interp(t, *self._table()))

    def sigma(self, t: Values) -> Float[Array, "*steps"]:
        """Noise standard deviation sqrt(1 - alpha-bar)."""
        return jnp.sqrt(-jnp.expm1(jnp.interp(t, *self._table())))

    def time(self, log_snr: Values) -> Float[Array, "*steps"]:
        """Inverse of the log-SNR."""
        times, table = self._table()
        return jnp.interp(jax.nn.softplus(-log_snr), -table, times)


def from_betas(betas: Float[np.ndarray, " n"] | Float[Array, " n"] | Sequence[float]) -> Tabulated:
    """The schedule of a DDPM: linear, scaled linear, clipped cosine, trained, any array of betas.

    Args:
        betas: (N,) beta_n of q(x_n given x_{n-1}) = N(sqrt(1 - beta_n) x_{n-1}, beta_n I), as Ho et
            al. (2020), eq. 2, from the cleanest level to the noisiest, in (0, 1).

    Returns:
        The schedule; a network that takes the index n is wrapped as
        ``lambda x, t: network(x, schedule.index(t))``.

    Raises:
        InputError: fewer than two betas, values outside (0, 1), or a first one above 0.5.
    """
    values = np.asarray(betas, np.float64)
    if values.ndim != 1 or values.size < 2 or not np.all((values > 0.0) & (values < 1.0)):
        raise InputError(
            f"from_betas: the betas have shape {values.shape} and values from"
            f" {values.min(initial=np.inf):.3g} to {values.max(initial=-np.inf):.3g}; give a"
            " one-dimensional array of at least two, each in (0, 1) (not alphas, nor cumulative"
            " products)"
        )
    if values[0] > 0.5:
        raise InputError(
            f"from_betas: the first beta is {values[0]:.3g}, which leaves less than half of the"
            " variance at the cleanest level; give betas from the cleanest level on, not alphas,"
            " nor cumulative products"
        )
    # Summed in float64: a thousand terms of 1e-4 would lose digits in float32.
    log_alpha_bar = np.cumsum(np.log1p(-values))
    return Tabulated(
        jnp.asarray(log_alpha_bar, jnp.result_type(float)), t_min=1.0 / len(values), t_max=1.0
    )
