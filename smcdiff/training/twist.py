"""Training a twist: a network that tells which x_t of a batch an observation came from.

Pairs are drawn from the model: x_0 from its prior, x_t = alpha x_0 + sigma eps at a random level, y
given x_0. Over the pairs of a batch the loss is minus

    mean_i [ log psi(y_i; x_i) - log mean_j psi(y_i; x_j) ]

(InfoNCE, van den Oord et al. 2018, eq. 4), which is least at psi = p(y given x_t) times any factor
of y. As x_j may be of any level, that factor is one for all levels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base._progress import Progress
from smcdiff.diffusion.schedules import Level, Schedule
from smcdiff.networks._contrast import ContrastConfig, ContrastNetwork
from smcdiff.store._network_functions import TwistNetwork
from smcdiff.store.twist import save_twist
from smcdiff.training._cards import contrast_table, model_card
from smcdiff.training._folder import CHECKPOINT, training_folder
from smcdiff.training._loop import Loss, minimise
from smcdiff.training._simulator import Pairs, Simulator, own_stream
from smcdiff.training._statistics import Statistics, clean_events
from smcdiff.training.config import TrainConfig

_OF_IMAGES = (
    "labels", "label_dropout", "init", "sample_every", "prediction", "weighting", "log_snr_mean",
    "log_snr_std", "uniform_share",
)  # fmt: skip
_NUM_EVENTS, _MOST_VALUES = 256, 2**16
"""Draws of the prior that are kept with the network, and numbers in them: a quarter of a MB."""


def train_twist(
    model: Callable,
    output: str | Path,
    config: TrainConfig | None = None,
    *,
    data: str | Path | None = None,
    command: str = "",
    progress_bar: bool | Progress = True,
) -> Path:
    """Trains a twist for any observation of a model, from simulated pairs.

    Runs that were killed resume from the last checkpoint in ``output``, to the same weights.

    Args:
        model: a NumPyro model, callable without arguments, with one diffusion site and one other
            site, which is simulated: it need not be differentiable.
        output: folder of the twist: config.json, model.safetensors, card.md.
        config: what to train. Each observation is told apart from ``batch_size`` events; the last
            of ``channels`` is the network's width, and for vectors ``layers`` its depth.
        data: images to take x_0 from (see `smcdiff.training._data.load_images`); None draws them
            from the model's prior, once.
        command: for the card.
        progress_bar: show progress; or a callable ``progress(t, num_steps, info)``, called after
            every step, which may raise to end the run there.

    Returns:
        The folder.

    Raises:
        InputError: a model, data or options that cannot be used; a folder that is taken.
    """
    config = TrainConfig() if config is None else config
    config.refuse("a twist", *_OF_IMAGES)
    simulator = Simulator.of(model)
    shape = simulator.prior.event_shape
    network = config.network(shape) if len(shape) == 3 else None
    images = None if data is None else simulator.images(data, config)
    with training_folder(output) as folder:
        events = simulator.draws(config) if images is None else images
        measured = _Measured.of(simulator, events, config)
        made = ContrastConfig(
            shape, measured.scales.observation_centre.shape, config.channels[-1], config.layers,
            network=network, patch=1 if network is None else config.patch,
        )  # fmt: skip
        learned, seconds = _learn(measured, made, folder, config, progress_bar)
        _write(
            folder, learned, config, _contrasts(measured.pairs, learned, config), command, seconds
        )
    return folder


class _Scales(NamedTuple):
    """Where events and observations lie, and how far they spread, as `TwistNetwork` has it."""

    event_mean: Array
    event_variance: Array
    observation_centre: Array
    observation_scale: Array

    @classmethod
    def of(cls, events: np.ndarray, observations: np.ndarray) -> _Scales:
        """Entry by entry; of images over all pixels, for their network sees all alike."""
        clean = np.asarray(clean_events(_spread_out(events, 2000)), float)
        axis = None if clean.ndim == 4 else 0
        low, centre, high = np.quantile(observations, [0.16, 0.5, 0.84], axis=axis)
        # Quantiles, for tails may be heavy; of a rare event they are all the same.
        scale, std = 0.5 * (high - low), np.std(observations, axis=axis)
        scale = np.where(scale > 0.0, scale, np.where(std > 0.0, std, 1.0))
        shapes = (clean.shape[1:],) * 2 + (observations.shape[1:],) * 2
        arrays = clean.mean(axis=axis), clean.var(axis=axis), centre, scale
        filled = (np.broadcast_to(a, shape) for a, shape in zip(arrays, shapes, strict=True))
        return cls(*(jnp.asarray(array, jnp.result_type(float)) for array in filled))


class _Measured(NamedTuple):
    """The pairs, and what is known of them before the training.

    Attributes:
        pairs: what the network learns from.
        scales: of events and observations.
    """

    pairs: Pairs
    scales: _Scales

    @classmethod
    def of(cls, simulator: Simulator, events: np.ndarray, config: TrainConfig) -> _Measured:
        """Simulates some observations to see their shape and scale.

        Raises:
            InputError: events or observations that are all the same.
        """
        Statistics.of(f"site '{simulator.site}'", events)
        observations = simulator.some_observations(events, config)
        return cls(Pairs.of(simulator, events, config), _Scales.of(events, observations))

    @property
    def schedule(self) -> Schedule:
        """The prior's."""
        return self.pairs.simulator.prior.schedule

    @property
    def log_snr_ends(self) -> Float[Array, "2"]:
        """Of the prior's schedule."""
        schedule = self.schedule
        return jnp.stack([schedule.log_snr(schedule.t_max), schedule.log_snr(schedule.t_min)])

    def kept(self) -> Float[Array, " n *event"]:
        """Events that stay with the network."""
        events, used = self.pairs.events, self.pairs.used
        count = min(_NUM_EVENTS, max(1, _MOST_VALUES // events[0].size))
        return jnp.asarray(clean_events(events[_spread_out(used, count)]))


def _spread_out(rows: np.ndarray, count: int) -> np.ndarray:
    """At most so many of some rows, from first to last: data are often sorted by class."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


def _learn(
    measured: _Measured,
    made: ContrastConfig,
    folder: Path,
    config: TrainConfig,
    progress_bar: bool | Progress,
) -> tuple[TwistNetwork, float]:
    """The network with its averaged weights, and the wall time in seconds."""
    ends, kept = measured.log_snr_ends, measured.kept()
    graph, params = nnx.split(nnx.jit(lambda: ContrastNetwork(made, rngs=nnx.Rngs(config.seed)))())

    def network(params) -> TwistNetwork:
        return TwistNetwork(
            params, kept, *measured.scales, ends, graph, made.observation_shape, made.bound
        )

    def value(params, clean, key):
        key_level, key_pairs = jax.random.split(key)
        strata = (jnp.arange(len(clean)) + jax.random.uniform(key_level)) / len(clean)
        log_snr = ends[0] + (ends[1] - ends[0]) * strata
        level = measured.schedule.level(measured.schedule.time(log_snr))
        return -jnp.mean(_contrast(network(params), measured.pairs, key_pairs, clean, level))

    loss = Loss(value, lambda step: measured.pairs.batch(step, config))
    state = minimise(loss, params, config, folder / CHECKPOINT, progress_bar=progress_bar)
    return network(state.ema), float(state.seconds)


def _contrast(
    learned: TwistNetwork,
    pairs: Pairs,
    key: PRNGKeyArray,
    clean: Float[Array, " b *event"],
    level: Level,
) -> Float[Array, " b"]:
    """The term of each pair in the module's formula, for x_0 at some levels."""
    key_noise, key_y = jax.random.split(key)
    alpha, sigma = (a.reshape(-1, *[1] * (clean.ndim - 1)) for a in (level.alpha, level.sigma))
    x = alpha * clean + sigma * jax.random.normal(key_noise, clean.shape)
    y = jax.vmap(pairs.simulator)(jax.random.split(key_y, len(clean)), clean)
    network = nnx.merge(learned.graph, learned.state)
    table = network.table(learned.encode(x, level), learned.encode_observation(y))
    return jnp.diagonal(jax.nn.log_softmax(table, axis=1)) + jnp.log(len(clean))


def _contrasts(pairs: Pairs, learned: TwistNetwork, config: TrainConfig) -> dict[float, float]:
    """The mean contrast of pairs that the network was not trained on, by log-SNR."""
    clean, schedule = pairs.unseen(), pairs.simulator.prior.schedule

    @jax.jit
    def contrast(log_snr):
        level = schedule.level(schedule.time(jnp.full(len(clean), log_snr)))
        return jnp.mean(_contrast(learned, pairs, own_stream(config, 2), clean, level))

    low, high = (float(end) for end in learned.log_snr_ends)
    return {float(at): float(contrast(at)) for at in np.arange(-8.0, 9.0, 2.0) if low < at < high}


def _write(
    folder: Path,
    learned: TwistNetwork,
    config: TrainConfig,
    contrasts: dict[float, float],
    command: str,
    seconds: float,
) -> None:
    """Writes the folder of the twist."""
    history = [{"command": command, "seconds": seconds}]
    size = sum(leaf.size for leaf in jax.tree.leaves(learned.state))
    network = f"Twist of {size:,} parameters for observations of shape {learned.observation_shape}."
    card = model_card(
        folder.name, config, "pairs of an event and its observation, simulated by the model",
        network, history, contrast_table(contrasts),
    )  # fmt: skip
    about = {
        "description": config.description,
        "licence": config.licence,
        "contrast": {f"{at:g}": value for at, value in contrasts.items()},
        "history": history,
    }
    save_twist(learned, folder, card, about)
