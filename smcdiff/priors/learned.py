"""Learned diffusion priors: any callable denoiser, with its parameterisation and schedule.

A network predicts x_0, eps or v; each is turned into the denoised mean m(x, t) in this one file:

    x_0-prediction: m = output;
    eps-prediction: m = (x - sigma output) / alpha;
    v-prediction (Salimans and Ho 2022), v = alpha eps - sigma x_0, with alpha^2 + sigma^2 = 1:
        m = alpha x - sigma output.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray

from smcdiff.base.module import Module, portable
from smcdiff.diffusion import kernels, schedules
from smcdiff.diffusion.laws.mixture import Transition
from smcdiff.diffusion.schedules import Level, Schedule
from smcdiff.errors import InputError, first_line
from smcdiff.priors.base import DiffusionDistribution


class Prediction(Protocol):
    """What the network's output means."""

    def denoised(self, output: Array, x: Array, level: Level) -> Array:
        """The denoised mean, from the output and the noisy x."""
        ...

    def target(self, clean: Array, noise: Array, level: Level) -> Array:
        """What the network should output for x = alpha clean + sigma noise; used in training."""
        ...


class X0Prediction(Module):
    """The network predicts x_0."""

    def denoised(self, output, x, level: Level):
        """The output itself."""
        return output

    def target(self, clean, noise, level: Level):
        """The clean event."""
        return clean


class EpsPrediction(Module):
    """The network predicts the noise eps."""

    def denoised(self, output, x, level: Level):
        """(x - sigma eps) / alpha."""
        return (x - level.sigma * output) / level.alpha

    def target(self, clean, noise, level: Level):
        """The noise."""
        return noise


class VPrediction(Module):
    """The network predicts v = alpha eps - sigma x_0; scaled where alpha^2 + sigma^2 != 1."""

    def denoised(self, output, x, level: Level):
        """(alpha x - sigma v) / (alpha^2 + sigma^2)."""
        return (level.alpha * x - level.sigma * output) / (level.alpha**2 + level.sigma**2)

    def target(self, clean, noise, level: Level):
        """Alpha eps - sigma x_0."""
        return level.alpha * noise - level.sigma * clean


class DenoisingError(Module):
    """Mean squared error of the denoised mean, a coordinate, at some noise levels.

    For a perfect denoiser it is the mean posterior variance of x_0 given x_t.

    Attributes:
        log_snr: (n,), increasing.
        values: (n,), positive, in squared data units.
    """

    log_snr: Float[Array, " n"]
    values: Float[Array, " n"]

    def at(self, level: Level) -> Float[Array, ""]:
        """The error at a level: its logarithm is interpolated in the log-SNR, flat at the ends."""
        return jnp.exp(jnp.interp(level.log_snr, self.log_snr, jnp.log(self.values)))


class DiffusionPrior(DiffusionDistribution):
    """A prior learned by denoising.

    Sampling starts from N(0, sigma_T^2 I), as if nothing of the data were left at ``t_max``: data
    must be centred and scaled so that alpha_T times them is small beside sigma_T (within [-1, 1],
    say, as images usually are, or of unit variance), or the draws are biased towards 0.

    Args:
        denoiser: ``denoiser(x, t)``, the network's raw output for one event x of ``event_shape``
            and a scalar t in the schedule's time. A pytree (its arrays then enter jit as
            arguments) or a plain function, which is compiled once with all that it reads: where
            parameters change later, give ``jax.tree_util.Partial(function, parameters)``.
        schedule: noise schedule; its ``t_min``, ``t_max`` bound the sampler's grid.
        event_shape: shape of one event (an integer is one axis).
        prediction: what the output means: `X0Prediction`, `EpsPrediction` or `VPrediction`.
        data_variance: variance of the data along the direction in which they vary most (largest
            eigenvalue of their covariance), in squared data units. It sets how far twists are
            widened: one that is too sure in any direction costs most of the particles, one that is
            too wide costs little.
        denoising_error: the denoiser's error by noise level, for `smcdiff.kernels.AnalyticDPM`.
        num_steps: steps of ``sample``.

    Raises:
        InputError: a denoiser whose output has another shape than the event, no prediction, or a
            ``data_variance`` of which more than a tenth of the noise's is left at ``t_max``.
    """

    denoiser: Any
    pytree_data_fields = ("denoiser", "prediction", "data_variance", "denoising_error")
    pytree_aux_fields = ("num_steps",)

    def __init__(
        self,
        denoiser: Callable,
        schedule: Schedule,
        event_shape: tuple[int, ...],
        prediction: Prediction | None = None,
        *,
        data_variance: float = 1.0,
        denoising_error: DenoisingError | None = None,
        num_steps: int = 100,
    ):
        """See the class."""
        if prediction is None:
            prediction = X0Prediction()
        if not hasattr(prediction, "denoised"):
            raise InputError(
                f"DiffusionPrior: prediction is {prediction!r}; pass an object, for example"
                " priors.EpsPrediction()"
            )
        if isinstance(event_shape, int):
            event_shape = (event_shape,)
        self.denoiser = portable(denoiser)
        self.prediction = prediction
        self.data_variance = jnp.asarray(data_variance)
        self.denoising_error = denoising_error
        self.num_steps = num_steps
        super().__init__(schedule, event_shape)
        event = jax.ShapeDtypeStruct(self.event_shape, jnp.result_type(float))
        time = jax.ShapeDtypeStruct((), event.dtype)
        try:
            output = jax.eval_shape(lambda x, t: self.denoise(x, t), event, time)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"DiffusionPrior: denoiser(x, t) fails on x of shape {self.event_shape}:"
                f" {first_line(error)}"
            ) from error
        found = getattr(output, "shape", type(output).__name__)
        if found != self.event_shape:
            raise InputError(
                f"DiffusionPrior: the denoiser returns shape {found} for an event of shape"
                f" {self.event_shape}; it must return one array of the event's shape"
            )
        left = jnp.exp(schedule.log_snr(schedule.t_max)) * self.data_variance
        if not isinstance(left, Tracer) and left > 0.1:
            raise InputError(
                f"DiffusionPrior: at t_max the data have {left:.2g} times the variance of the noise"
                " (data_variance times the signal-to-noise ratio), but sampling starts from noise"
                " alone; scale the data, or take a larger t_max"
            )

    def denoise(self, x: Float[Array, "*event"], t: Float[Array, ""]) -> Float[Array, "*event"]:
        """The denoised mean m(x, t): one network evaluation."""
        level = schedules.levels(self.schedule, t)
        return self.prediction.denoised(self.denoiser(x, t), x, level)

    def terminal(self) -> Transition:
        """N(0, sigma_T^2 I); the schedule must end where alpha_T times the data is negligible."""
        size = math.prod(self.event_shape)
        sigma = self.schedule.sigma(jnp.asarray(self.schedule.t_max))
        return Transition.isotropic_normal(jnp.zeros((size,)), sigma**2)

    def default_kernel(self) -> kernels.Kernel:
        """DDPM's ancestral kernel."""
        return kernels.DDIM()

    def spread(self, level: Level) -> Float[Array, ""]:
        """Variance of x_0 given x_t, as if the data were one isotropic Gaussian."""
        noise, signal = level.sigma**2, level.alpha**2 * self.data_variance
        return self.data_variance * noise / (signal + noise)

    def average_spread(self, level: Level) -> Float[Array, ""]:
        """The denoising error, where it is known."""
        if self.denoising_error is None:
            return self.spread(level)
        return self.denoising_error.at(level)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws by ancestral sampling on the log-SNR grid, ``sample_shape + event_shape``."""
        grid = schedules.UniformLogSNR()(self.schedule, self.num_steps)
        steps = schedules.levels(self.schedule, grid)
        kernel = self.default_kernel()

        def step(carry, pair):
            x, key = carry
            t, s = pair
            key, key_step = jax.random.split(key)
            denoised = self.denoise(x.reshape(self.event_shape), t.time).reshape(-1)
            return (kernel(self, x, denoised, t, s).sample(key_step), key), None

        def draw(key):
            key, key_start = jax.random.split(key)
            start = self.terminal().sample(key_start)
            pairs = jax.tree.map(lambda a: (a[:-1], a[1:]), steps)
            first, second = (Level(*(field[i] for field in pairs)) for i in (0, 1))
            (x, _), _ = jax.lax.scan(step, (start, key), (first, second))
            return x.reshape(self.event_shape)

        return self._sample_many(draw, key, sample_shape)

    def given(
        self, label: Int[Array, ""] | int, strength: Float[Array, ""] | float | None = None
    ) -> DiffusionPrior:
        """The prior of one class, where the network was trained with labels.

        Args:
            label: the class, from 0; it may be traced.
            strength: omega of classifier-free guidance (Ho and Salimans 2022): the output without
                the class plus omega times the difference that the class makes, at twice the cost.
                A heuristic: the draws are those of no prior unless omega is 1, which None is. See
                `smcdiff.proposals.ClassifierFree` for guided draws with weights.

        Raises:
            InputError: a prior without classes, or a class that it does not have.
        """
        num_classes = getattr(self.denoiser, "num_classes", 0)
        if not num_classes:
            raise InputError("this prior knows no classes; train one with `smcdiff train --labels`")
        # An embedding takes a class beyond the last one for the last one, without a word.
        if not isinstance(label, Tracer) and not 0 <= int(label) < num_classes:
            raise InputError(f"class {label}: this prior has the classes 0 to {num_classes - 1}")
        return DiffusionPrior(
            self.denoiser.given(label, strength), self.schedule, self.event_shape, self.prediction,
            data_variance=self.data_variance, denoising_error=self.denoising_error,
            num_steps=self.num_steps,
        )  # fmt: skip

    def log_prob(self, value: Float[Array, "*batch_event"]) -> Float[Array, "*batch"]:
        """Log density by the probability-flow ODE, in nat; see `smcdiff.flow.ProbabilityFlow`.

        Exact trace for events of up to 64 entries, beyond with Hutchinson's probes under a fixed
        key; ``flow.ProbabilityFlow().log_prob`` gives the standard error too. Some hundred network
        evaluations: `smcdiff.SMC` needs no log density of the prior.

        Args:
            value: events, with any leading axes.
        """
        from smcdiff.priors import flow

        return flow.ProbabilityFlow().log_prob(self, value).value
