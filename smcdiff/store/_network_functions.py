"""Flax networks as functions of one event, with their weights as leaves of a pytree.

A network maps a batch of events and of DDPM's time steps; priors and proposals want a function of
one event and a schedule's time, whose weights enter compiled programs as arguments.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Shaped

from smcdiff.base._numbers import Scalar
from smcdiff.base.module import Module, static
from smcdiff.diffusion import schedules
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.priors import DiffusionPrior, Prediction

if TYPE_CHECKING:
    from flax import nnx


def parameters(network: nnx.Module) -> dict[str, np.ndarray]:
    """A network's parameters as they are written, under diffusers' names.

    Those that float16 holds without loss, as of everything that is trained here, are written so.
    """
    from smcdiff.networks.unet import state_dict

    arrays = state_dict(network)
    with np.errstate(over="ignore"):
        halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    is_whole = all(np.array_equal(halves[name], array) for name, array in arrays.items())
    return halves if is_whole else arrays


def _timesteps(t: Scalar, x: Array) -> Float[Array, " 1"]:
    """A schedule's time as the time steps of a batch of one event x."""
    return schedules.TIMESTEPS * jnp.asarray(t, x.dtype)[None]


class NetworkDenoiser(Module):
    """A Flax network as the denoiser of a `DiffusionPrior`; its weights are pytree leaves.

    Attributes:
        state: the parameters.
        graph: the network without them.
        num_classes: classes that the network knows; 0 for an unconditional one.
        label: the class to denoise for, a scalar; ``num_classes`` for none, None where the network
            knows no classes.
        strength: of classifier-free guidance by that class, or None for the class alone.
    """

    state: Any
    graph: Any = static()
    num_classes: int = static(default=0)
    label: Int[Array, ""] | None = None
    strength: Float[Array, ""] | float | None = None

    @classmethod
    def wrap(cls, network: nnx.Module, num_classes: int = 0) -> NetworkDenoiser:
        """From a network called as ``network(images, timesteps, labels)``.

        Timesteps lie in [0, 1000]; labels are None unless there are classes, and then
        ``num_classes``, "no class", until `given` one.
        """
        from flax import nnx

        graph, state = nnx.split(network)
        return cls(state, graph, num_classes, jnp.int32(num_classes) if num_classes else None)

    def given(
        self, label: Int[Array, ""] | np.integer | int | str, strength: Scalar | None = None
    ) -> NetworkDenoiser:
        """The denoiser of one class, or guided by it.

        Raises:
            InputError: a network without classes, or a class that it does not have.
        """
        if not self.num_classes:
            raise InputError("this prior knows no classes; train one with `smcdiff train --labels`")
        if isinstance(label, str):
            raise InputError(
                f"this prior takes a class, a number from 0, not '{label}'; train one of captions"
                " with `smcdiff train text`"
            )
        # An embedding takes a class beyond the last one for the last one, without a word.
        if not isinstance(label, Tracer) and not 0 <= int(label) < self.num_classes:
            raise InputError(
                f"class {label}: this prior has the classes 0 to {self.num_classes - 1}"
            )
        return dataclasses.replace(self, label=jnp.asarray(label, jnp.int32), strength=strength)

    def __call__(self, x: Float[Array, "h w c"], t: Scalar) -> Float[Array, "h w c"]:
        """The raw output for one image; t in the schedule's time."""
        from flax import nnx

        network = nnx.merge(self.graph, self.state)
        times = _timesteps(t, x)
        if self.strength is None or self.label is None:
            labels = None if self.label is None else self.label[None]
            return network(x[None], times, labels)[0]
        labels = jnp.stack([jnp.int32(self.num_classes), self.label])
        plain, given = network(jnp.stack([x, x]), jnp.repeat(times, 2), labels)
        return plain + self.strength * (given - plain)


class NetworkClassifier(Module):
    """A Flax network as a noise-conditional classifier; its weights are pytree leaves.

    Attributes:
        state: the parameters.
        schedule: the noise schedule that it was trained on.
        graph: the network without its parameters.
    """

    state: Any
    schedule: schedules.Schedule
    graph: Any = static()

    def __call__(self, x: Float[Array, "h w c"], t: Scalar) -> Float[Array, " k"]:
        """Logits of the classes of x_t = x; t in the schedule's time."""
        from flax import nnx

        network = nnx.merge(self.graph, self.state)
        return network(x[None], _timesteps(t, x))[0]

    def given(self, label: Int[Array, ""] | int) -> ClassLogProb:
        """What `smcdiff.proposals.ClassifierGuidance` takes."""
        return ClassLogProb(self, jnp.asarray(label, jnp.int32))


class ClassLogProb(Module):
    """Log probability of one class under a noise-conditional classifier.

    Attributes:
        classifier: the classifier.
        label: the class, a scalar.
    """

    classifier: NetworkClassifier
    label: Int[Array, ""]

    @property
    def schedule(self) -> schedules.Schedule:
        """The noise schedule of the classifier, which the prior must share."""
        return self.classifier.schedule

    def __call__(self, x: Float[Array, "h w c"], t: Scalar) -> Float[Array, ""]:
        """Log p(class given x_t = x)."""
        return jax.nn.log_softmax(self.classifier(x, t))[self.label]


class ObservationDenoiser(Module):
    """A conditional Flax network as the denoiser of a `DiffusionPrior`.

    Attributes:
        state: the parameters.
        observation: y, standardised.
        graph: the network without its parameters.
    """

    state: Any
    observation: Float[Array, "*observation"]
    graph: Any = static()

    def __call__(self, x: Float[Array, "h w c"], t: Scalar) -> Float[Array, "h w c"]:
        """The raw output for one image; t in the schedule's time."""
        from flax import nnx

        network = nnx.merge(self.graph, self.state)
        return network(x[None], _timesteps(t, x), self.observation[None])[0]


class ConditionalNetwork(Module):
    """A network trained on pairs (x_0, y); what `smcdiff.proposals.Amortized` takes.

    Attributes:
        state: the parameters.
        mean: of the observations of the training, over all entries.
        std: their standard deviation.
        prediction: what the output means.
        schedule: noise schedule.
        graph: the network without its parameters.
        event_shape: shape of x_0.
        observation_shape: shape of y.
        data_variance: as in `DiffusionPrior`.
    """

    state: Any
    mean: Float[Array, ""] | float
    std: Float[Array, ""] | float
    prediction: Prediction
    schedule: schedules.Schedule
    graph: Any = static()
    event_shape: tuple[int, ...] = static()
    observation_shape: tuple[int, ...] = static()
    data_variance: float = static(default=1.0)

    def given(self, y: Float[Array, "*observation"]) -> DiffusionPrior:
        """The diffusion prior given y: what the network takes for the posterior.

        Raises:
            InputError: y has another shape than the observations of the training.
        """
        y = jnp.asarray(y)
        if y.shape != self.observation_shape:
            raise InputError(
                f"the observation has shape {y.shape}, but the network was trained for"
                f" {self.observation_shape}: an amortised network serves one size; train another"
                " with `smcdiff train amortized`, or use a proposal that reads the likelihood"
            )
        denoiser = ObservationDenoiser(self.state, (y - self.mean) / self.std, self.graph)
        return DiffusionPrior(
            denoiser, self.schedule, self.event_shape, self.prediction,
            data_variance=self.data_variance, probe=False,
        )  # fmt: skip


class TwistNetwork(Module):
    """A network trained to tell the x_t that an observation came from; see `smcdiff.load_twist`.

    It sees x_t as multiples of its standard deviation, and the log-SNR instead of a time, so that
    it serves every noise schedule.

    Attributes:
        state: the parameters.
        events: (n, *event) some draws of the prior, over which psi is averaged.
        event_mean: of the events of the training.
        event_variance: their variance, in squared data units.
        observation_centre: of the observations of the training.
        observation_scale: their spread.
        log_snr_ends: (2,) the least and the largest log-SNR of the training.
        graph: a `smcdiff.networks._contrast.ContrastNetwork` without its parameters.
        observation_shape: shape of y.
        bound: of log psi, either way, in nat.
    """

    state: Any
    events: Float[Array, " n *event"]
    event_mean: Float[Array, "*event"]
    event_variance: Float[Array, "*event"]
    observation_centre: Float[Array, "*observation"]
    observation_scale: Float[Array, "*observation"]
    log_snr_ends: Float[Array, "2"]
    graph: Any = static()
    observation_shape: tuple[int, ...] = static()
    bound: float = static(default=12.0)

    def encode(self, x: Float[Array, " b *event"], t: Level) -> Float[Array, "b k"]:
        """Features of noisy events.

        Args:
            x: the events.
            t: the noise level of each.
        """
        from flax import nnx

        alpha, sigma = (a.reshape(-1, *[1] * self.event_mean.ndim) for a in (t.alpha, t.sigma))
        scale = jnp.sqrt(alpha**2 * self.event_variance[None] + sigma**2)
        low, high = self.log_snr_ends
        # From 0 at the least noise; beyond the ends the network knows nothing new.
        times = jnp.clip((high - t.log_snr) / (high - low), 0.0, 1.0)
        network = nnx.merge(self.graph, self.state)
        return network.encode(
            (x - alpha * self.event_mean[None]) / scale, schedules.TIMESTEPS * times
        )

    def encode_observation(self, y: Float[Array, " b *observation"]) -> Float[Array, "b k"]:
        """Features of observations."""
        from flax import nnx

        standardised = (y - self.observation_centre[None]) / self.observation_scale[None]
        return nnx.merge(self.graph, self.state).encode_observation(standardised)

    def given(self, y: Shaped[Array, "*observation"]) -> LogTwist:
        """Log psi of an observation, as a function of x_t.

        Raises:
            InputError: y has another shape than the observations of the training.
        """
        y = jnp.asarray(y, jnp.result_type(float))
        if y.shape != self.observation_shape:
            raise InputError(
                f"the observation has shape {y.shape}, but the twist was trained for"
                f" {self.observation_shape}: a learned twist serves one size; train another with"
                " `smcdiff train twist`"
            )
        return LogTwist(self, self.encode_observation(y[None])[0])


class LogTwist(Module):
    """Log psi_t of one observation, up to a constant.

    Attributes:
        network: the network.
        features: of the observation.
    """

    network: TwistNetwork
    features: Float[Array, " k"]

    def __call__(self, x: Float[Array, "*event"], t: Level) -> Float[Array, ""]:
        """Log psi_t(x), between ``-bound`` and ``bound``."""
        from flax import nnx

        at = jax.tree.map(lambda field: jnp.asarray(field)[None], t)
        network = nnx.merge(self.network.graph, self.network.state)
        return network.compare(self.network.encode(x[None], at), self.features[None])[0]
