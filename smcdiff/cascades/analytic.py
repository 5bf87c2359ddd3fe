"""The exact upsampler of a Gaussian or a mixture: p(high given the noised low resolution)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from smcdiff.base.module import Module, set_fields, static
from smcdiff.cascades.augmentation import LowResolution, scales
from smcdiff.diffusion.schedules import Schedule
from smcdiff.errors import InputError
from smcdiff.exact import dense_matrix
from smcdiff.priors import AnalyticPrior
from smcdiff.priors._spectrum import Spectrum


class AnalyticUpsampler(Module):
    """p(x given c) in closed form, for an analytic prior of x and c = alpha D x + sigma eps.

    What an upsampler learns, where it is known: for tests, and for trying a model out before a
    network is trained. Its ``given(low)`` is a mixture of Gaussians.

    Args:
        prior: of the high resolution.
        down: D: a matrix (m, d), or a linear callable on events; a mean over blocks, for example.
        log_snr: of the noise of c. It serves this level alone, and refuses others.

    Raises:
        InputError: a prior of another kind, shapes that do not fit, a level that is not finite.
    """

    means: Float[Array, "k m"]
    gains: Float[Array, "k d m"]
    whiten: Float[Array, "k m m"]
    log_weights: Float[Array, " k"]
    high_means: Float[Array, "k d"]
    spectrum: Spectrum
    schedule: Schedule
    event_shape: tuple[int, ...] = static()
    log_snr: float = static()

    def __init__(
        self,
        prior: AnalyticPrior | Any,  # whose error names the remedy
        down: Callable[..., Any] | ArrayLike | Sequence[Any],
        log_snr: float,
    ):
        """See the class."""
        if not isinstance(prior, AnalyticPrior):
            raise InputError(
                f"AnalyticUpsampler: the prior is a {type(prior).__name__}; give a priors.Gaussian"
                " or a priors.GaussianMixture"
            )
        if not np.isfinite(log_snr):
            raise InputError(
                f"AnalyticUpsampler: log_snr is {log_snr}; give a finite level, for without noise"
                " the high resolution has no density given the low one"
            )
        alpha, sigma = (float(scale) for scale in scales(log_snr))
        matrix = np.asarray(dense_matrix(down, prior.event_shape), float)
        covariances = np.asarray(prior.component_covariances(), float)
        cross = alpha * covariances @ matrix.T
        joint = alpha * matrix[None] @ cross + sigma**2 * np.eye(len(matrix))
        lower = np.linalg.cholesky(joint)
        gains = np.swapaxes(np.linalg.solve(joint, np.swapaxes(cross, 1, 2)), 1, 2)
        values, basis = np.linalg.eigh(covariances - gains @ np.swapaxes(cross, 1, 2))
        log_dets = 2.0 * np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(-1)
        single = jnp.result_type(float)
        values = jnp.asarray(np.maximum(values, np.finfo(single).eps * values.max()), single)
        spectrum = Spectrum(values, jnp.asarray(basis, single), jnp.ones((1, 1), single))
        set_fields(
            self,
            means=jnp.asarray(alpha * np.asarray(prior.means) @ matrix.T, single),
            gains=jnp.asarray(gains, single),
            whiten=jnp.asarray(np.linalg.inv(lower), single),
            log_weights=prior.log_weights - jnp.asarray(0.5 * log_dets, single),
            high_means=prior.means, spectrum=spectrum,
            schedule=_Given(prior.log_weights, prior.means, spectrum, (prior.size,), None).schedule,
            event_shape=prior.event_shape, log_snr=float(log_snr),
        )  # fmt: skip

    def given(self, low: LowResolution | Any, strength: Any = None) -> AnalyticPrior:
        """The law of the high resolution given a low one.

        Args:
            low: noised at the level of this upsampler.
            strength: of guidance, which it has not.

        Raises:
            InputError: another level, size or kind of condition.
        """
        if not isinstance(low, LowResolution) or strength is not None:
            raise InputError(
                "AnalyticUpsampler: it takes a cascades.LowResolution and no strength of guidance"
            )
        if not isinstance(low.log_snr, Tracer) and float(low.log_snr) != self.log_snr:
            raise InputError(
                f"AnalyticUpsampler: made for log_snr {self.log_snr:g}, and the low resolution has"
                f" {float(low.log_snr):g}; give one level to both"
            )
        if low.image.size != self.means.shape[1]:
            raise InputError(
                f"AnalyticUpsampler: the low resolution has shape {low.image.shape}, and `down`"
                f" gives {self.means.shape[1]} entries"
            )
        misfits = jnp.ravel(low.image)[None] - self.means
        white = jnp.einsum("kmn,kn->km", self.whiten, misfits)
        log_weights = jax.nn.log_softmax(self.log_weights - 0.5 * jnp.sum(white**2, axis=-1))
        means = self.high_means + jnp.einsum("kdm,km->kd", self.gains, misfits)
        return _Given(log_weights, means, self.spectrum, self.event_shape, self.schedule)


class _Given(AnalyticPrior):
    """A mixture from its parts."""

    def __init__(
        self,
        log_weights: Array,
        means: Array,
        spectrum: Spectrum,
        event_shape: tuple[int, ...],
        schedule: Schedule | None,
    ):
        self._setup(log_weights, means, spectrum, event_shape, schedule)
