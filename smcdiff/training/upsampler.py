"""Training an upsampler: a prior of the high resolution given the low one, and its folder.

The loss is that of `smcdiff.training.prior`; the network sees the picture's own low resolution, a
mean over blocks, with noise of a random level that it is told (Ho et al. 2022, section 4).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base._progress import Progress
from smcdiff.cascades import LowResolution
from smcdiff.diffusion import schedules
from smcdiff.networks._upsampling import UpsamplingUNet, enlarged
from smcdiff.priors import DenoisingError, DiffusionPrior
from smcdiff.results import plots
from smcdiff.store._captions import CaptionReader
from smcdiff.store._upsampling_denoiser import UpsamplingDenoiser, no_captions
from smcdiff.store.prior import save_prior
from smcdiff.text.embedding import TextEmbedding
from smcdiff.training._captioned import SHAPES, Captioned, averaged, captioned
from smcdiff.training._cards import error_table, model_card
from smcdiff.training._data import LabelledImages, check_count, load_images, split
from smcdiff.training._folder import CHECKPOINT, SAMPLES, training_folder
from smcdiff.training._loop import Loss, minimise
from smcdiff.training._noise import Noise, denoising_loss, held_out_errors
from smcdiff.training._statistics import Statistics, clean_events
from smcdiff.training.prior import Learned
from smcdiff.training.text import CaptionedTraining, caption_reader, encoded_captions
from smcdiff.training.upsampler_config import UpsamplerTrainConfig

_NUM_HELD_OUT, _NUM_SHOWN, _SHAPES_SIZE = 256, 8, 64


def train_upsampler(
    data: str | Path,
    output: str | Path,
    config: UpsamplerTrainConfig | None = None,
    *,
    progress_bar: bool | Progress = True,
) -> Path:
    """Trains an upsampler on pictures and writes its model folder.

    The result is a prior that is given a low resolution, ``load_prior(output).given(low)``, or a
    `smcdiff.cascades.LowResolution`, noised; and a stage of a `smcdiff.Cascade`. Runs that were
    killed resume from the last checkpoint in ``output``, to the same weights.

    Args:
        data: "shapes" for `smcdiff.shapes`, drawn without end; or pictures of the high resolution,
            see `smcdiff.training._data.load_images`, or with ``config.captioned``
            `smcdiff.training._captioned.CaptionedFiles`.
        output: folder of the prior: config.json, model.safetensors, card.md, samples.png.
        config: what to train.
        progress_bar: show progress; or a callable ``progress(t, num_steps, info)``, called after
            every step, which may raise to end the run there.

    Returns:
        The folder.

    Raises:
        InputError: data or options that cannot be used; a folder that holds a finished prior.
    """
    config = UpsamplerTrainConfig() if config is None else config
    source = _Source.of(data, config)
    with training_folder(output) as folder:
        pictures = source.open(folder)
        learned = _learn(pictures, folder, config, Noise.of(source.statistics), progress_bar)
        _write(data, folder, config, source, pictures, learned)
    return folder


class _Pictures(NamedTuple):
    """What is learned from.

    Attributes:
        batch: pictures in [-1, 1] and captions of one step, of no tokens where there are none.
        held_out: pictures and captions that are not learned from.
        reader: of captions, or None.
    """

    batch: Callable[[int], tuple[Array, TextEmbedding]]
    held_out: tuple[Array, TextEmbedding]
    reader: CaptionReader | None


class _Source(NamedTuple):
    """Pictures that were looked at, and not yet encoded.

    Attributes:
        shape: of a picture, (h, w, c).
        description: for the card.
        licence: for the card.
        statistics: of the pictures.
        open: the pictures with their captions, which may be encoded into a folder.
    """

    shape: tuple[int, ...]
    description: str
    licence: str
    statistics: Statistics
    open: Callable[[Path], _Pictures]

    @classmethod
    def of(cls, data: str | Path, config: UpsamplerTrainConfig) -> _Source:
        """Reads them.

        Raises:
            InputError: data that cannot be used, or that do not divide into blocks.
        """
        if config.captioned or str(data) == SHAPES:
            size = _SHAPES_SIZE if config.size is None and str(data) == SHAPES else config.size
            config = dataclasses.replace(config, size=size)
            pictures = captioned(data, config)
            opened = _with_captions if config.captioned else _without_captions
            source = cls(
                pictures.shape, pictures.description, pictures.licence,
                Statistics.of(pictures.name, pictures.some(2000)),
                lambda folder: opened(pictures, folder, config),
            )  # fmt: skip
        else:
            source = cls._of_images(Path(data), config)
        config.low_shape(source.shape)
        return source

    @classmethod
    def _of_images(cls, path: Path, config: UpsamplerTrainConfig) -> _Source:
        images = averaged(path, load_images(path), config.size)
        check_count(path, len(images), config.batch_size)
        used, out = split(len(images), config.batch_size)
        training = LabelledImages(images, None, 0, used)
        clean = jnp.asarray(clean_events(images[out[:_NUM_HELD_OUT]]))

        def batch(step):
            return _uncaptioned(training.batch(step, config)[0], config)

        return cls(
            images.shape[1:], f"{len(images)} images of shape {images.shape[1:]}", "",
            Statistics.of(str(path), images),
            lambda folder: _Pictures(batch, _uncaptioned(clean, config), None),
        )  # fmt: skip


def _uncaptioned(images: Array, config: UpsamplerTrainConfig) -> tuple[Array, TextEmbedding]:
    return images, no_captions((len(images),), config.text_channels)


def _without_captions(pictures: Captioned, folder: Path, config: UpsamplerTrainConfig) -> _Pictures:
    """Shapes, of whose captions nothing is seen."""
    return _Pictures(
        lambda step: _uncaptioned(pictures.batch(step, config)[0], config),
        _uncaptioned(pictures.held_out(_NUM_HELD_OUT)[0], config), None,
    )  # fmt: skip


def _with_captions(pictures: Captioned, folder: Path, config: UpsamplerTrainConfig) -> _Pictures:
    """Pictures and captions as `smcdiff.training.text` has them."""
    encoded = encoded_captions(pictures.every_caption(), folder, config)
    reader = caption_reader(pictures, encoded, config)
    training = CaptionedTraining(pictures, encoded, reader)
    clean, captions = pictures.held_out(_NUM_HELD_OUT)
    return _Pictures(
        lambda step: training.partly_hidden(step, config), (clean, training.seen(captions)), reader
    )


def lowered(images: Float[Array, "b h w c"], factor: int) -> Float[Array, "b h_low w_low c"]:
    """The low resolution: means over blocks of ``factor`` x ``factor`` pixels."""
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height // factor, factor, width // factor, factor, channels)
    return blocks.mean(axis=(2, 4))


def augmented(
    key: PRNGKeyArray, low: Float[Array, "b h w c"], least_log_snr: float
) -> tuple[Float[Array, "b h w c"], Float[Array, " b"]]:
    """Low resolutions, each with noise of its own level, and the log-SNRs of those."""
    key_level, key_noise = jax.random.split(key)
    cosine = schedules.Cosine()
    most = cosine.time(jnp.asarray(least_log_snr))
    log_snr = cosine.log_snr(most * jax.random.uniform(key_level, (len(low),)))
    keys = jax.random.split(key_noise, len(low))
    return jax.vmap(lambda *one: LowResolution.noised(*one).image)(keys, low, log_snr), log_snr


def _learn(
    pictures: _Pictures,
    folder: Path,
    config: UpsamplerTrainConfig,
    noise: Noise,
    progress_bar: bool | Progress,
) -> Learned[UpsamplingDenoiser]:
    """Runs the optimiser, with a checkpoint and a picture of draws in the folder."""
    shape, reader = pictures.held_out[0].shape[1:], pictures.reader
    widths = None
    if reader is not None:
        widths = reader.states_mean.shape[0], reader.pooled_mean.shape[0]
    network = config.upsampling_network(shape, widths)

    def make():
        return UpsamplingUNet(network, config.patch, rngs=nnx.Rngs(config.seed))

    graph, params = nnx.split(nnx.jit(make)())
    error = denoising_loss(graph, noise, config)

    def value(params, batch, key):
        clean, text = batch
        key_low, key = jax.random.split(key)
        seen = augmented(key_low, lowered(clean, config.factor), config.log_snr)
        return error(params, key, clean, *seen, text)

    def denoiser_of(params):
        low_shape = config.low_shape(shape)
        return UpsamplingDenoiser.wrap_upsampler(nnx.merge(graph, params), reader, low_shape)

    def show(params):
        prior = DiffusionPrior(
            denoiser_of(params), noise.sampled, shape, config.target(), probe=False
        )
        _draw_samples(prior, pictures.held_out[0][:_NUM_SHOWN], config, folder / SAMPLES)

    loss, checkpoint = Loss(value, pictures.batch), folder / CHECKPOINT
    state = minimise(loss, params, config, checkpoint, show=show, progress_bar=progress_bar)
    show(state.ema)
    return Learned(denoiser_of(state.ema), noise, float(state.seconds))


@jax.jit
def _sample(keys: Array, prior: DiffusionPrior, low: LowResolution) -> Float[Array, "n h w c"]:
    return jax.vmap(lambda key, low: prior.given(low).sample(key))(keys, low)


def _draw_samples(
    prior: DiffusionPrior, clean: Array, config: UpsamplerTrainConfig, file: Path
) -> None:
    """Held-out pictures: low, drawn given it, drawn given it with the most noise, true."""
    if not plots.is_image(prior.event_shape):
        return
    keys = jax.random.split(jax.random.key(config.seed), len(clean))
    low = lowered(clean, config.factor)
    rows = [enlarged(low, *clean.shape[1:3])]
    for log_snr in (jnp.inf, config.log_snr):
        levels = jnp.full(len(clean), log_snr, jnp.float32)
        seen = jax.vmap(LowResolution.noised)(keys, low, levels)
        rows.append(_sample(keys, prior, seen))
    plots.save_grid(np.concatenate([*rows, clean]), file, columns=len(clean), scale=2)


def _errors(
    pictures: _Pictures,
    learned: Learned[UpsamplingDenoiser],
    config: UpsamplerTrainConfig,
    log_snr: float,
) -> DenoisingError:
    """By noise level on held-out pictures, given their low resolutions with some noise."""
    clean, text = pictures.held_out
    keys, levels = jax.random.split(jax.random.key(1), len(clean)), jnp.full(len(clean), log_snr)
    low = jax.vmap(LowResolution.noised)(keys, lowered(clean, config.factor), levels)
    network = nnx.merge(learned.denoiser.graph, learned.denoiser.state)

    def outputs(x, t):
        times = jnp.full(len(x), schedules.TIMESTEPS * t)
        return network(x, times, low.image, low.log_snr, text)

    return held_out_errors(outputs, clean, learned.noise.sampled, config.target())


def _write(
    data: str | Path,
    folder: Path,
    config: UpsamplerTrainConfig,
    source: _Source,
    pictures: _Pictures,
    learned: Learned[UpsamplingDenoiser],
) -> None:
    """Writes the folder of the prior."""
    denoiser, schedule = learned.denoiser, learned.noise.sampled
    errors = {at: _errors(pictures, learned, config, at) for at in (jnp.inf, config.log_snr)}
    prior = DiffusionPrior(
        denoiser, schedule, source.shape, config.target(),
        data_variance=source.statistics.variance, denoising_error=errors[jnp.inf], probe=False,
    )  # fmt: skip
    history = [
        {"command": config.command(Path(data), folder, "upsampler"), "seconds": learned.seconds}
    ]
    licence = config.licence or source.licence
    size = sum(leaf.size for leaf in jax.tree.leaves(denoiser.state))
    low_shape = config.low_shape(source.shape)
    card = model_card(
        folder.name, dataclasses.replace(config, licence=licence), source.description,
        f"Upsampler from {low_shape[0]} x {low_shape[1]} (means over blocks of the data) to"
        f" {source.shape[0]} x {source.shape[1]}. U-Net of {size:,} parameters (diffusers'"
        f" UNet2DConditionModel on {config.patch} x {config.patch} pixels folded into channels)"
        " that sees the low resolution, enlarged bilinearly, as further channels, and the log-SNR"
        f" of its noise beside the time; {config.prediction}-prediction,"
        f" {type(schedule).__name__} schedule. Noise on the low resolution: log-SNR from"
        f" {config.log_snr:g} to none.{_about_captions(pictures, config)}",
        history,
        f"Given the low resolution without noise. {error_table(errors[jnp.inf])}\nGiven it with"
        f" noise of log-SNR {config.log_snr:g}. {error_table(errors[config.log_snr])}\nHeld-out"
        " pictures, a column each: the low resolution; a draw given it, 100 steps; one given it"
        f" with the most noise; the picture:\n\n![samples]({SAMPLES})\n",
    )  # fmt: skip
    about = {
        "description": config.description,
        "licence": licence,
        "data_norm": source.statistics.norm,
        "training": dataclasses.asdict(config),
        "history": history,
    }
    save_prior(prior, folder, card=card, about=about)


def _about_captions(pictures: _Pictures, config: UpsamplerTrainConfig) -> str:
    if pictures.reader is None:
        return ""
    encoder = pictures.reader.encoder
    return (
        f" Captions: text encoder '{encoder.name}', sha256 of its weights {encoder.weights}; hidden"
        f" from {config.caption_dropout:.0%} of the pictures."
    )
