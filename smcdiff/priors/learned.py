"""Learned diffusion priors: any callable denoiser, with its parameterisation and schedule."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from smcdiff.base._numbers import Scalar
from smcdiff.base.module import portable
from smcdiff.diffusion.denoising_error import DenoisingError
from smcdiff.diffusion.schedules import Schedule
from smcdiff.diffusion.thresholding import Threshold
from smcdiff.errors import InputError, first_line
from smcdiff.priors.base import Prior
from smcdiff.priors.predictions import Prediction, X0Prediction

_LARGEST_SIGNAL = 0.1
"""Of the data's variance at ``t_max``, over the noise's, at which N(0, sigma_T^2 I) may start."""
_SLOPE_ERROR, _LARGEST_VARIANCE, _NUM_PROBES = 0.5, 10.0, 4
"""What the probes of a denoiser let pass for an error of its training; see `_probe`."""


@runtime_checkable
class ConditionalDenoiser(Protocol):
    """A denoiser that can be given a condition."""

    def given(self, condition: Any, strength: Float[Array, ""] | float | None = None) -> Any:
        """The denoiser given the condition; ``InputError`` where it does not take this one."""
        ...


class DiffusionPrior(Prior):
    """A prior learned by denoising.

    Sampling starts from N(0, sigma_T^2 I), as if nothing of the data were left at ``t_max``: data
    must be centred and scaled so that alpha_T times them is small beside sigma_T (within [-1, 1],
    say, as images usually are, or of unit variance), or the draws are biased towards 0.

    Args:
        denoiser: ``denoiser(x, t)``, the network's raw output for one event x of ``event_shape``
            and a scalar t in the schedule's time (channels last; one event, and no batch). Any
            callable: of an object the arrays enter jit as arguments, a plain function is compiled
            with all that it reads. A network that wants a DDPM's index n is wrapped as ``lambda x,
            t: network(x, schedule.index(t))``, see `smcdiff.schedules.from_betas`. One that has
            ``given(condition, strength)`` makes a prior that can be conditioned.
        schedule: noise schedule; its ``t_min``, ``t_max`` bound the sampler's grid.
        event_shape: shape of one event (an integer is one axis).
        prediction: what the output means: `X0Prediction` (default), `EpsPrediction`,
            `VPrediction` or `EDMPrediction`.
        data_variance: variance of the data along the direction in which they vary most (largest
            eigenvalue of their covariance), in squared data units. It sets how far twists are
            widened: one that is too sure in any direction costs most of the particles, one that is
            too wide costs little.
        denoising_error: the denoiser's error by noise level, for `smcdiff.kernels.AnalyticDPM`.
        threshold: applied to every denoised mean, see `smcdiff.thresholding`; None is none.
        num_steps: steps of ``sample``.
        probe: try the denoiser at two noise levels, and refuse one that cannot be right; two
            compiled calls.

    Raises:
        InputError: a denoiser that fails, returns another shape than the event, or does not denoise
            (a wrong unit of time, or the wrong prediction); a ``data_variance`` of which more than
            a tenth of the noise's is left at ``t_max``.
    """

    denoiser: Any
    prediction: Prediction
    data_variance: Float[Array, ""]
    denoising_error: DenoisingError | None

    def __init__(
        self,
        denoiser: Callable,
        schedule: Schedule,
        event_shape: tuple[int, ...] | int,
        prediction: Prediction | None = None,
        *,
        data_variance: Float[Array, ""] | float = 1.0,
        denoising_error: DenoisingError | None = None,
        threshold: Threshold | None = None,
        num_steps: int = 100,
        probe: bool = True,
    ):
        """See the class."""
        prediction = X0Prediction() if prediction is None else prediction
        if not isinstance(prediction, Prediction):
            raise InputError(
                f"DiffusionPrior: prediction is {prediction!r}; pass an object, for example"
                " priors.EpsPrediction()"
            )
        shape = (event_shape,) if isinstance(event_shape, int) else event_shape
        self.denoiser = portable(denoiser)
        self.prediction = prediction
        self.data_variance = jnp.asarray(data_variance, jnp.result_type(float))
        self.denoising_error = denoising_error
        super().__init__(schedule, shape, threshold=threshold, num_steps=num_steps)
        self._check_output()
        left = jnp.exp(schedule.noisiest.log_snr) * self.data_variance
        if isinstance(left, Tracer):
            return
        if left > _LARGEST_SIGNAL:
            raise InputError(
                f"DiffusionPrior: at t_max the data have {left:.2g} times the variance of the noise"
                " (data_variance times the signal-to-noise ratio), but sampling starts from noise"
                " alone; scale the data, or take a larger t_max"
            )
        if probe and not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(self)):
            _probe(self)

    @property
    def is_self_contained(self) -> bool:
        """Whether the denoiser is an object with its parameters, and not a plain function."""
        return not isinstance(self.denoiser, jax.tree_util.Partial)

    def posterior_mean(self, x: Float[Array, "*event"], t: Scalar) -> Float[Array, "*event"]:
        """What the network takes for E[x_0 given x_t = x]: one network evaluation."""
        level = self.schedule.level(t)
        output = self.denoiser(*self.prediction.inputs(x, level))
        return self.prediction.denoised(output, x, level)

    def _check_output(self) -> None:
        """Raises ``InputError`` unless the denoiser takes one event and returns its shape."""
        event = jax.ShapeDtypeStruct(self.event_shape, jnp.result_type(float))
        inputs = jax.eval_shape(
            lambda x, t: self.prediction.inputs(x, self.schedule.level(t)),
            event, jax.ShapeDtypeStruct((), event.dtype),
        )  # fmt: skip
        try:
            output = jax.eval_shape(lambda *inputs: self.denoiser(*inputs), *inputs)
        except Exception as error:  # a user's network may raise anything
            raise InputError(
                f"DiffusionPrior: denoiser(x, t) fails on x of shape {self.event_shape}:"
                f" {first_line(error)}{self._hint(error, inputs)}"
            ) from error
        found = getattr(output, "shape", type(output).__name__)
        if found != self.event_shape:
            hint = self._hint(None, inputs)
            raise InputError(
                f"DiffusionPrior: the denoiser returns shape {found} for an event of shape"
                f" {self.event_shape}; it must return one array of the event's shape{hint}"
            )

    def _hint(self, error: Exception | None, inputs: tuple) -> str:
        """What is likely wrong with a denoiser that fails on one event."""
        if isinstance(error, jax.errors.JAXTypeError):
            return (
                "; it computes outside JAX: use jax.numpy, or wrap it in jax.pure_callback (with"
                " proposals that need no gradient, such as proposals.Bootstrap())"
            )
        batched = [jax.ShapeDtypeStruct((1, *a.shape), a.dtype) for a in inputs]
        for args, form in ((batched, "network(x[None], t[None])[0]"),
                           ((batched[0], inputs[1]), "network(x[None], t)[0]")):  # fmt: skip
            try:
                output = jax.eval_shape(lambda *args: self.denoiser(*args), *args)
            except Exception:
                continue
            if getattr(output, "shape", None) == (1, *self.event_shape):
                return f"; it wants a batch: pass lambda x, t: {form}"
        return ""

    def given(
        self,
        condition: Any,
        strength: Float[Array, ""] | float | None = None,
        threshold: Threshold | None = None,
    ) -> DiffusionPrior:
        """The prior given a condition, where the network was trained with conditions.

        Args:
            condition: what the network takes: for one trained with labels the class, from 0; for
                one trained with captions a text, or the `smcdiff.text.TextEmbedding` of one. A
                class and an embedding may be traced.
            strength: omega of classifier-free guidance (Ho and Salimans 2022): the output without
                the condition plus omega times the difference that it makes, at twice the cost. A
                heuristic: the draws are those of no prior unless omega is 1, which None is. See
                `smcdiff.proposals.ClassifierFree` for guided draws with weights.
            threshold: for the means; None keeps the prior's own.

        Raises:
            InputError: a prior that takes no condition, or not this one.
        """
        if not isinstance(self.denoiser, ConditionalDenoiser):
            raise InputError(
                "this prior takes no condition: its denoiser has no given(condition, strength);"
                " train one with `smcdiff train --labels`, or `smcdiff train text`"
            )
        return DiffusionPrior(
            self.denoiser.given(condition, strength), self.schedule, self.event_shape,
            self.prediction, data_variance=self.data_variance,
            denoising_error=self.denoising_error,
            threshold=self.threshold if threshold is None else threshold,
            num_steps=self.num_steps, probe=False,
        )  # fmt: skip

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes the prior as a folder that `smcdiff.load_prior` reads.

        Args:
            folder: one that does not exist yet, or holds no model.

        Returns:
            The folder.

        Raises:
            InputError: a model is there already, or it cannot be written.
        """
        from smcdiff.store.prior import save_prior  # which loads priors, and so imports this

        return save_prior(self, folder)


@jax.jit
def _responses(
    prior: DiffusionPrior,
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """At ``t_max`` the slope of the denoised mean on pure noise; at log-SNR 0 its variance.

    Between them the slope that a right denoiser has at most, where ``data_variance`` is that of the
    data; the variance is over it.
    """
    noise = jax.random.normal(jax.random.key(0), (_NUM_PROBES, *prior.event_shape))

    def means(level, scale):
        x = scale * noise
        mean = jax.lax.map(lambda one: prior.denoise(one, level.time), x)
        return [a - jnp.mean(a, axis=0, keepdims=True) for a in (x, mean)]

    top, variance = prior.schedule.noisiest, prior.data_variance
    x, mean = means(top, top.sigma)
    slope = jnp.sum(x * mean) / jnp.sum(x**2)
    largest = top.alpha * variance / (top.alpha**2 * variance + top.sigma**2)
    middle = prior.schedule.level(prior.schedule.time(jnp.zeros(())))
    _, mean = means(middle, jnp.sqrt(middle.alpha**2 * variance + middle.sigma**2))
    return slope, largest, jnp.mean(mean**2) / variance


def _probe(prior: DiffusionPrior) -> None:
    """Raises ``InputError`` where a denoiser cannot be right for data of that variance.

    At ``t_max`` nearly nothing is known of x_0: the slope of the mean on the noise is at most that
    of a Gaussian of the data's variance, and not negative. eps taken for v gives -1, x_0 or v taken
    for eps 1 / alpha_T, and so does an eps network that takes the time for an index and so sees no
    noise. At log-SNR 0 the variance of the mean is at most that of the data.
    """
    slope, largest, variance = (float(value) for value in _responses(prior))
    if not all(map(math.isfinite, (slope, variance))):
        raise InputError(
            "DiffusionPrior: the denoiser returns NaN or infinite values for noise of the data's"
            " scale (at t_max or at log-SNR 0): check its weights, and what it does with large x"
        )
    is_small = -_SLOPE_ERROR < slope < largest + _SLOPE_ERROR
    if not (is_small and variance < _LARGEST_VARIANCE):
        raise InputError(
            f"DiffusionPrior: at t_max the denoised mean follows the noise with slope {slope:.3g},"
            f" where a denoiser's is between 0 and {largest:.3g}, and at log-SNR 0 its variance is"
            f" {variance:.3g} times data_variance, where a denoiser's is at most 1: check what the"
            " network predicts (prediction=), the unit of time that it wants (schedule.index(t) of"
            " schedules.from_betas, or 1000 * t) and data_variance; probe=False switches this test"
            " off"
        )
