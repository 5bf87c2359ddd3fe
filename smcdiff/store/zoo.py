"""Loading learned priors: from the zoo that ships with the package, or from a folder.

A prior is a folder with ``config.json`` (network, schedule, parameterisation, checksum),
``model.safetensors`` (the U-Net under diffusers' names) and ``card.md``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from smcdiff.base.files import open_npz
from smcdiff.base.module import Module, static
from smcdiff.base.pixels import to_unit_range
from smcdiff.diffusion import schedules
from smcdiff.errors import InputError, did_you_mean, first_line
from smcdiff.priors import (
    DenoisingError,
    DiffusionPrior,
    EpsPrediction,
    VPrediction,
    X0Prediction,
)  # fmt: skip

if TYPE_CHECKING:
    from flax import nnx

PREDICTIONS = {"x0": X0Prediction, "eps": EpsPrediction, "v": VPrediction}
SCHEDULES = {
    cls.__name__: cls
    for cls in (
        schedules.Cosine, schedules.LinearBeta, schedules.OrnsteinUhlenbeck,
        schedules.VarianceExploding,
    )
}  # fmt: skip
_TERMINAL_SIGNAL = 0.5
"""Largest alpha_T |x_0| / sigma_T, a typical event, at which a standard normal start is right."""


@dataclasses.dataclass(frozen=True)
class PriorInfo:
    """One prior of the zoo.

    Attributes:
        name: what `load_prior` takes.
        path: its folder.
        event_shape: shape of one event.
        description: one line.
        licence: licence of the data it was trained on.
    """

    name: str
    path: Path
    event_shape: tuple[int, ...]
    description: str
    licence: str


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
        self, label: Int[Array, ""] | int, strength: Float[Array, ""] | float | None = None
    ) -> NetworkDenoiser:
        """The denoiser of one class, or guided by it."""
        return dataclasses.replace(self, label=jnp.asarray(label, jnp.int32), strength=strength)

    def __call__(self, x: Float[Array, "h w c"], t: Float[Array, ""]) -> Float[Array, "h w c"]:
        """The raw output for one image; t in the schedule's time."""
        from flax import nnx

        network = nnx.merge(self.graph, self.state)
        times = schedules.TIMESTEPS * jnp.asarray(t, x.dtype)[None]
        if self.strength is None or self.label is None:
            labels = None if self.label is None else self.label[None]
            return network(x[None], times, labels)[0]
        labels = jnp.stack([jnp.int32(self.num_classes), self.label])
        plain, given = network(jnp.stack([x, x]), jnp.repeat(times, 2), labels)
        return plain + self.strength * (given - plain)


def zoo_folder() -> Path:
    """Where the shipped priors lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def list_priors() -> list[PriorInfo]:
    """The priors that ship with the package."""
    infos = []
    for file in sorted(zoo_folder().glob("*/config.json")):
        config = read_config(file.parent)
        if config.get("kind", "prior") != "prior":
            continue
        infos.append(
            PriorInfo(
                file.parent.name,
                file.parent,
                tuple(config["event_shape"]),
                config.get("description", ""),
                config.get("licence", ""),
            )
        )
    return infos


def load_prior(name_or_path: str | os.PathLike) -> DiffusionPrior:
    """Loads a learned prior.

    Args:
        name_or_path: a name of `list_priors`, or the folder of a prior.

    Returns:
        The prior: a NumPyro distribution over events in the units it was trained in.

    Raises:
        InputError: unknown name, or a folder that is incomplete, damaged or not understood.
    """
    folder = prior_folder(name_or_path)
    config = read_config(folder)
    kind = config.get("kind", "prior")
    if kind != "prior":
        raise InputError(
            f"{folder} holds a {kind}, not a prior; smcdiff.load_classifier and load_conditional"
            " read the other kinds"
        )
    with entries_of(folder):
        schedule = read_schedule(config)
        prediction = PREDICTIONS[config["prediction"]]()
        shape = read_shape(config["event_shape"])
        variance, norm = float(config["data_variance"]), float(config["data_norm"])
        if not (0.0 < variance < np.inf and 0.0 < norm < np.inf):
            raise ValueError("data_variance and data_norm must be positive")
        _check_terminal(folder, schedule, norm)
        error = _denoising_error(config.get("denoising_error"))
        classes = config["network"].get("num_class_embeds") or 1
        denoiser = NetworkDenoiser.wrap(_network(folder, config), classes - 1)
        return DiffusionPrior(
            denoiser, schedule, shape, prediction, data_variance=variance, denoising_error=error
        )


@contextmanager
def entries_of(folder: Path) -> Iterator[None]:
    """Turns what goes wrong while a folder is understood into an ``InputError`` that names it."""
    try:
        yield
    except InputError as error:
        if str(folder) in str(error):
            raise
        raise InputError(
            f"{folder}: config.json and model.safetensors do not fit each other ({error}); install"
            " or train it again"
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise InputError(
            f"{folder / 'config.json'}: missing or wrong entry ({first_line(error)}); install or"
            " train it again"
        ) from error


def read_schedule(config: dict) -> schedules.Schedule:
    """The noise schedule of a configuration."""
    entry = dict(config["schedule"])
    return SCHEDULES[entry.pop("name")](**{name: float(value) for name, value in entry.items()})


def read_shape(entry: list[int]) -> tuple[int, ...]:
    """A shape of a configuration."""
    shape = tuple(entry)
    if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"{entry} is not a shape")
    return shape


def _denoising_error(table: dict[str, float] | None) -> DenoisingError | None:
    """The entry of config.json, by log-SNR; older priors have none."""
    if table is None:
        return None
    pairs = sorted((float(log_snr), value) for log_snr, value in table.items())
    log_snr, values = np.array(pairs, np.float32).T
    return DenoisingError(jnp.asarray(log_snr), jnp.asarray(values))


def load_examples(name_or_path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Real events that a prior's training has not seen.

    Args:
        name_or_path: as for `load_prior`.

    Returns:
        Events (n, *event_shape) float32 in the prior's units, and their labels (n,).

    Raises:
        InputError: unknown name, or a prior that comes without examples.
    """
    file = prior_folder(name_or_path) / "examples.npz"
    if not file.is_file():
        raise InputError(f"{file}: this prior comes without examples; give an image of your own")
    with open_npz(file) as arrays:
        return to_unit_range(arrays["images"]), arrays["labels"]


def prior_folder(name_or_path: str | os.PathLike) -> Path:
    """The folder of a prior, given by its path or by a name of `list_priors`."""
    given, name = Path(name_or_path), str(name_or_path)
    for folder in (given, zoo_folder() / name):
        if (folder / "config.json").is_file():
            return folder
    if given.is_dir() and name:
        raise InputError(f"{given}: the folder has no config.json, so it is no trained prior")
    if given.is_file():
        raise InputError(f"{given} is a file; give the folder of a prior, or a name")
    hint = did_you_mean(name, [info.name for info in list_priors()])
    raise InputError(f"no prior named '{name}'; {hint}, or give a prior's folder")


def read_config(folder: Path) -> dict:
    """The configuration of a model folder."""
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text())
        if not isinstance(config, dict):
            raise ValueError("not a JSON object")
        return config
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({error}); install or train it again") from error


def _check_terminal(folder: Path, schedule, norm: float) -> None:
    """The sampler starts from N(0, sigma_T^2), so little of the data may be left at t_max."""
    left = float(schedule.alpha(schedule.t_max) / schedule.sigma(schedule.t_max)) * norm
    if left > _TERMINAL_SIGNAL:
        raise InputError(
            f"{folder}: at t_max the signal is still {left:.2f} of the noise (data norm"
            f" {norm:.1f}); raise the schedule's t_max"
        )


def _network(folder: Path, config: dict):
    """The network with the folder's weights."""
    from flax import nnx

    from smcdiff.networks.unet import PatchedUNet, UNet2D, UNet2DConfig, load_state_dict

    weights = read_weights(folder, config)
    unet = nnx.eval_shape(
        lambda: UNet2D(UNet2DConfig.from_dict(config["network"]), rngs=nnx.Rngs(0))
    )
    load_state_dict(unet, weights)
    return PatchedUNet(unet, config["patch"])


def read_weights(folder: Path, config: dict) -> dict[str, np.ndarray]:
    """The arrays of model.safetensors, checked against the configuration's checksum."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    file = folder / "model.safetensors"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != config.get("sha256"):
        raise InputError(
            f"{file}: the checksum does not match config.json; the file is truncated or damaged,"
            " so install or train the prior again"
        )
    try:
        weights = load(content)
    except SafetensorError as error:
        raise InputError(f"{file}: not a safetensors file ({error}); train it again") from error
    for name, array in weights.items():
        if array.dtype.kind != "f" or not np.all(np.isfinite(array)):
            raise InputError(f"{file}: '{name}' has values that are no finite floats; train again")
    return weights
