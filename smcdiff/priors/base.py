"""`Prior`: a NumPyro distribution that a sampler can reach through a reverse diffusion."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from smcdiff.base._numbers import Scalar
from smcdiff.diffusion import flow
from smcdiff.diffusion.denoising_error import DenoisingError
from smcdiff.diffusion.kernels import DDIM, Kernel
from smcdiff.diffusion.laws import Mixture
from smcdiff.diffusion.schedules import Level, Schedule, UniformLogSNR
from smcdiff.diffusion.thresholding import Threshold
from smcdiff.errors import InputError


class Prior(dist.Distribution):
    """A distribution over one event, with a denoiser and a noise schedule.

    A subclass says what it can do; everything else of the package asks here and nowhere else::

        class Mine(Prior):
            scale: jax.Array  # annotated fields are children of the pytree, `static` ones structure

            def __init__(self, scale):
                self.scale = scale
                super().__init__(schedules.Cosine(), scale.shape)

            def posterior_mean(self, x, t): ...

    It must define `posterior_mean`. The other methods have defaults that hold for any prior whose
    data are centred and of about unit size; a prior that knows better overrides them. Methods that
    take an event work on one event; map over particles with ``jax.vmap``.

    Attributes:
        schedule: noise schedule of the forward process.
        threshold: applied to every denoised mean, or None.
        num_steps: steps of `sample`.
        denoising_error: the denoiser's error by noise level, where it is known.
        data_variance: variance of the data along the direction in which they vary most, in squared
            data units.
        has_exact_reverse: whether `reverse` is known in closed form.
        has_exact_denoiser: whether `posterior_mean` is exact, so that its Jacobian is a covariance.
        is_self_contained: whether all that `posterior_mean` reads is in the pytree; else its
            program is compared at every run, so that no stale one is used.
    """

    schedule: Schedule
    threshold: Threshold | None
    num_steps: int
    denoising_error: DenoisingError | None = None
    data_variance: Float[Array, ""] | float = 1.0
    has_exact_reverse: ClassVar[bool] = False
    has_exact_denoiser: ClassVar[bool] = False
    is_self_contained: bool = False
    arg_constraints: ClassVar[dict] = {}
    reparametrized_params: ClassVar[list] = []
    pytree_data_fields = ("schedule", "threshold")
    pytree_aux_fields = ("num_steps",)

    def __init_subclass__(cls, **kwargs: Any):
        children, fixed = _declared(cls)
        cls.pytree_data_fields = (*cls.__dict__.get("pytree_data_fields", ()), *children)
        cls.pytree_aux_fields = (*cls.__dict__.get("pytree_aux_fields", ()), *fixed)
        super().__init_subclass__(**kwargs)

    @classmethod
    def gather_pytree_data_fields(cls) -> tuple[str, ...]:
        """NumPyro's, in one order: its own is a set's, which differs between processes.

        The processes of one run must make the same program, and so must one that resumes it.
        """
        return tuple(sorted(super().gather_pytree_data_fields()))

    @classmethod
    def gather_pytree_aux_fields(cls) -> tuple[str, ...]:
        """See `gather_pytree_data_fields`."""
        return tuple(sorted(super().gather_pytree_aux_fields()))

    def __init__(
        self,
        schedule: Schedule,
        event_shape: tuple[int, ...],
        *,
        threshold: Threshold | None = None,
        num_steps: int = 100,
    ):
        """Sets what every prior has; a subclass sets its own fields and calls this."""
        name = type(self).__name__
        if not isinstance(schedule, Schedule):
            raise InputError(
                f"{name}: schedule is {schedule!r}; pass an object of smcdiff.schedules, for"
                " example schedules.Cosine()"
            )
        if threshold is not None and not isinstance(threshold, Threshold):
            raise InputError(
                f"{name}: threshold is {threshold!r}; pass an object of smcdiff.thresholding, for"
                " example thresholding.Static(1.0)"
            )
        self.schedule, self.threshold, self.num_steps = schedule, threshold, num_steps
        self._check_declared()
        super().__init__(batch_shape=(), event_shape=tuple(event_shape), validate_args=False)

    def _check_declared(self) -> None:
        """Raises ``InputError`` where a subclass lacks what every program of it needs."""
        cls = type(self)
        if cls.posterior_mean is Prior.posterior_mean:
            raise InputError(
                f"{cls.__name__} must define posterior_mean(x, t), E[x_0 given x_t = x]"
            )
        declared = {*cls.gather_pytree_data_fields(), *cls.gather_pytree_aux_fields()}
        lost = sorted(vars(self).keys() - declared)
        if lost:
            raise InputError(
                f"{cls.__name__}: {lost} would be lost where the prior enters a compiled program;"
                f" annotate them in the class, for example `{lost[0]}: jax.Array`"
            )

    @property
    def support(self) -> constraints.Constraint:
        """The real numbers, one for each entry of an event."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def size(self) -> int:
        """Entries d of an event."""
        return math.prod(self.event_shape)

    def posterior_mean(self, x: Float[Array, "*event"], t: Scalar) -> Float[Array, "*event"]:
        """E[x_0 given x_t = x], or what was learned of it; t in the schedule's time."""
        raise NotImplementedError(f"{type(self).__name__} must define posterior_mean")

    def denoise(self, x: Float[Array, "*event"], t: Scalar) -> Float[Array, "*event"]:
        """The denoised mean m(x, t): `posterior_mean` (Tweedie), within the threshold."""
        mean = self.posterior_mean(x, t)
        return mean if self.threshold is None else self.threshold(mean)

    def score(self, x: Float[Array, "*event"], t: Scalar) -> Float[Array, "*event"]:
        """The score of p_t: ``(alpha_t m(x, t) - x) / sigma_t^2``."""
        level = self.schedule.level(t)
        return (level.alpha * self.denoise(x, t) - x) / level.sigma**2

    def terminal(self) -> Mixture:
        """The law of x_T at ``schedule.t_max``, on flat events; by default N(0, sigma_T^2 I)."""
        sigma = self.schedule.noisiest.sigma
        return Mixture.isotropic_normal(jnp.zeros((self.size,)), sigma**2)

    def default_kernel(self) -> Kernel:
        """The reverse kernel used when the user names none; by default DDPM's ancestral one."""
        return DDIM()

    def reverse(self, x: Float[Array, " d"], t: Level, s: Level) -> Mixture:
        """The exact law of x_s given x_t = x, where ``has_exact_reverse``."""
        raise NotImplementedError(f"{type(self).__name__} knows no exact reverse kernel")

    def spread(self, level: Level) -> Float[Array, ""]:
        """A guess of the variance of x_0 given x_t, per coordinate; in squared data units.

        As if the data were one isotropic Gaussian. It may be that of the most variable direction,
        which keeps a twist from being too sure.
        """
        noise, signal = level.sigma**2, level.alpha**2 * self.data_variance
        return self.data_variance * noise / (signal + noise)

    def average_spread(self, level: Level) -> Float[Array, ""]:
        """The variance of x_0 given x_t, averaged over coordinates; `spread` where not known.

        A draw of x_0 wants this one.
        """
        error = self.denoising_error
        return self.spread(level) if error is None else error.at(level)

    def posterior_covariance_times(
        self, rows: Float[Array, "m d"], level: Level
    ) -> Float[Array, "m d"] | None:
        """Each row times the covariance of x_0 given x_t, where that does not depend on x_t."""
        return None

    def given(
        self,
        condition: Any,
        strength: Float[Array, ""] | float | None = None,
        threshold: Threshold | None = None,
    ) -> Prior:
        """The prior given a condition: a label, an observation, any pytree that it was trained on.

        Args:
            condition: what is known of the event.
            strength: of classifier-free guidance, or None for the condition alone.
            threshold: for the guided means; None keeps the prior's own.

        Raises:
            InputError: a prior that takes no condition, or not this one.
        """
        raise InputError(f"this {type(self).__name__} takes no condition")

    @property
    def centre(self) -> Float[Array, "*event"]:
        """Where the data lie, roughly: the origin, about which a learned prior's must lie."""
        return jnp.zeros(self.event_shape)

    def widths(self, x: Float[Array, "*event"]) -> Float[Array, ""]:
        """Root mean square over the entries of the distance of x from the centre.

        In standard deviations of the data, averaged over the entries: draws of the prior lie at 1.
        """
        return jnp.sqrt(jnp.mean((x - self.centre) ** 2) / self._variance_on_average)

    @partial(jax.jit, static_argnames="count")
    def typical_points(self, count: int) -> Float[Array, " count *event"]:
        """Random points as far from the centre as the data; always the same ones."""
        noise = jax.random.normal(jax.random.key(1), (count, *self.event_shape))
        return self.centre[None] + jnp.sqrt(self._variance_on_average) * noise

    @property
    def _variance_on_average(self) -> Float[Array, ""]:
        return self.average_spread(self.schedule.noisiest)

    @partial(jax.jit, static_argnames="count")
    def probe_points(self, count: int) -> Float[Array, " count *event"]:
        """Random points at the location and scale of the prior; always the same ones.

        Without running the reverse process. Linearity and gradients of likelihoods are tried there.
        """
        scale = jnp.sqrt(self.spread(self.schedule.noisiest))
        points = scale * jax.random.normal(jax.random.key(1), (count, *self.event_shape))
        return self.centre[None] + points

    def rough_draws(self, key: PRNGKeyArray, count: int) -> Float[Array, " count *event"]:
        """Draws of x_0 that cost no reverse process: one network evaluation for all.

        By default of N(m(x_T), spread I) at the mean of x_T; a prior that can draw at once does.
        """
        mean = self.denoise(self.terminal().mean.reshape(self.event_shape), self.schedule.t_max)
        noise = jax.random.normal(key, (count, *self.event_shape))
        return mean[None] + jnp.sqrt(self.spread(self.schedule.noisiest)) * noise

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws by ancestral sampling on the log-SNR grid, ``sample_shape + event_shape``."""
        levels = UniformLogSNR()(self.schedule, self.num_steps)
        kernel = self.default_kernel()

        def step(carry, pair):
            x, key = carry
            t, s = pair
            key, key_step = jax.random.split(key)
            return (self._step_down(key_step, kernel, x, t, s), key), None

        def draw(key):
            key, key_start = jax.random.split(key)
            start = self.terminal().sample(key_start)
            (x, _), _ = jax.lax.scan(step, (start, key), _pairs(levels))
            return x

        return self._sample_many(draw, key, sample_shape)

    def reverse_path(
        self, key: PRNGKeyArray, kernel: Kernel, levels: Level
    ) -> Float[Array, "levels d"]:
        """One path of the reverse chain, flat, x_T first.

        Args:
            key: random key.
            kernel: reverse kernel.
            levels: of a grid.
        """

        def down(x, inputs):
            step, (t, s) = inputs
            below = self._step_down(jax.random.fold_in(key, step), kernel, x, t, s)
            return below, below

        count = levels.time.shape[0]
        start = self.terminal().sample(jax.random.fold_in(key, count))
        _, rest = jax.lax.scan(down, start, (jnp.arange(count - 1), _pairs(levels)))
        return jnp.concatenate([start[None], rest])

    def _step_down(
        self, key: PRNGKeyArray, kernel: Kernel, x: Float[Array, " d"], t: Level, s: Level
    ) -> Float[Array, " d"]:
        """A draw of x_s given x_t."""
        denoised = jnp.ravel(self.denoise(x.reshape(self.event_shape), t.time))
        return kernel(self, x, denoised, t, s).sample(key)

    def _sample_many(self, draw_one, key: PRNGKeyArray, sample_shape: tuple[int, ...]) -> Array:
        """Maps a sampler of one flat event over ``sample_shape``."""
        draws = jax.vmap(draw_one)(jax.random.split(key, math.prod(sample_shape)))
        return jnp.reshape(draws, (*sample_shape, *self.event_shape))

    def log_prob(self, value: Float[Array, "*batch_event"]) -> Float[Array, "*batch"]:
        """Log density by the probability-flow ODE, in nat; see `smcdiff.flow.ProbabilityFlow`.

        Exact trace for events of up to 64 entries, beyond with Hutchinson's probes under a fixed
        key; ``flow.ProbabilityFlow().log_prob`` gives the standard error too. Some hundred network
        evaluations: `smcdiff.SMC` needs no log density of the prior.

        Args:
            value: events, with any leading axes.
        """
        return flow.ProbabilityFlow().log_prob(self, value).value


def _pairs(levels: Level) -> tuple[Level, Level]:
    """The levels that the steps of a grid leave, and those that they reach."""
    return jax.tree.map(lambda a: a[:-1], levels), jax.tree.map(lambda a: a[1:], levels)


def _declared(cls: type) -> tuple[list[str], list[str]]:
    """Fields that a subclass of `Prior` annotates in its own body: children, and static ones."""
    children, fixed = [], []
    for name, annotation in cls.__dict__.get("__annotations__", {}).items():
        if str(annotation).startswith(("ClassVar", "typing.ClassVar")):
            continue
        value = cls.__dict__.get(name)
        if isinstance(value, dataclasses.Field):
            delattr(cls, name)
        if isinstance(value, dataclasses.Field) and value.metadata.get("static", False):
            fixed.append(name)
        else:
            children.append(name)
    return children, fixed
