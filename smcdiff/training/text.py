"""Training a prior of captioned pictures, and the folder of what was learned.

The loss is that of `smcdiff.training.prior`; the network sees the tokens and the pooled vector of
each picture's caption, as a frozen text encoder gives them, and of a random share of the pictures
neither (Ho and Salimans 2022; Saharia et al. 2022).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from smcdiff.base._progress import Progress
from smcdiff.errors import InputError
from smcdiff.networks.unet import PatchedUNet
from smcdiff.networks.unet_condition import UNet2DCondition
from smcdiff.priors import DenoisingError, DiffusionPrior
from smcdiff.results import plots
from smcdiff.store._captions import CAPTIONS, CaptionReader
from smcdiff.store._text_denoiser import TextDenoiser, hidden
from smcdiff.store.prior import load_prior, save_prior
from smcdiff.text.captions import EncodedCaptions
from smcdiff.text.embedding import TextEmbedding
from smcdiff.text.load import load_text_encoder
from smcdiff.training._captioned import Captioned, captioned
from smcdiff.training._cards import error_table, model_card
from smcdiff.training._data import is_hidden
from smcdiff.training._folder import CHECKPOINT, SAMPLES, training_folder
from smcdiff.training._loop import Loss, minimise
from smcdiff.training._noise import Noise, denoising_loss, held_out_errors
from smcdiff.training._statistics import Statistics
from smcdiff.training.prior import Learned, earlier_runs, initial
from smcdiff.training.text_config import CaptionedTrainConfig, TextTrainConfig

_STRENGTHS = (1.0, 3.0)
"""Of the draws in the picture: the caption alone, and guided by it."""
_NUM_HELD_OUT, _NUM_SHOWN = 256, 8
"""Pictures for the errors, and captions of the picture of draws."""


def train_text(
    data: str | Path,
    output: str | Path,
    config: TextTrainConfig | None = None,
    *,
    progress_bar: bool | Progress = True,
) -> Path:
    """Trains a prior on captioned pictures and writes its model folder.

    Captions are encoded once, into a file that is read again when a run goes on. Runs that were
    killed resume from the last checkpoint in ``output``, to the same weights.

    Args:
        data: "shapes" for `smcdiff.shapes`, drawn without end; or pictures and their captions, see
            `smcdiff.training._captioned.CaptionedFiles`.
        output: folder of the prior: config.json, model.safetensors, card.md, samples.png, and
            captions.safetensors unless ``config.captions`` names another file.
        config: what to train.
        progress_bar: show progress; or a callable ``progress(t, num_steps, info)``, called after
            every step, which may raise to end the run there.

    Returns:
        The folder.

    Raises:
        InputError: data or options that cannot be used; a text encoder that is missing, or another
            one than that of the file of captions; a folder that holds a finished prior.
    """
    config = TextTrainConfig() if config is None else config
    pictures = captioned(data, config)
    statistics = Statistics.of(pictures.name, pictures.some(2000))
    with training_folder(output) as folder:
        encoded = encoded_captions(pictures.every_caption(), folder, config)
        training = CaptionedTraining(pictures, encoded, caption_reader(pictures, encoded, config))
        learned = _learn(training, folder, config, Noise.of(statistics), progress_bar)
        _write(data, folder, config, training, learned, statistics)
    return folder


def encoded_captions(
    captions: Sequence[str], folder: Path, config: CaptionedTrainConfig
) -> EncodedCaptions:
    """The captions as the encoder gives them, out of the file or into it.

    Raises:
        InputError: a file of another encoder, or without some caption; an encoder that is missing.
    """
    file = folder / CAPTIONS if config.captions is None else Path(config.captions)
    if not file.exists():
        encoded = EncodedCaptions.encode(load_text_encoder(config.encoder), captions)
        encoded.save(file)
    # Read again even when new, so that a run that goes on sees the same precision.
    encoded = EncodedCaptions.load(file)
    _check_encoder(encoded, file, config)
    if missing := set(captions) - set(encoded.captions):
        raise InputError(
            f"{file}: caption '{min(missing)}' is not among the {len(encoded.captions)} encoded"
            f" ones ({len(missing)} are missing); delete the file, or name another with --captions"
        )
    return encoded


def _check_encoder(encoded: EncodedCaptions, file: Path, config: CaptionedTrainConfig) -> None:
    """Raises ``InputError`` where the encoder is there and is another; without it the file counts.

    A machine that trains need not hold the encoder.
    """
    try:
        encoder = load_text_encoder(config.encoder)
    except InputError:
        return
    encoded.encoder.require(encoder.identity, f"{file}, encoded captions")


def caption_reader(
    pictures: Captioned, encoded: EncodedCaptions, config: TextTrainConfig
) -> CaptionReader:
    """How captions are read; a network that is trained further keeps the units that it knows."""
    own = CaptionReader.of(encoded, pictures.trained_captions(), config.encoder, pictures.grammar)
    if config.init is None:
        return own
    start = load_prior(config.init).denoiser
    if not isinstance(start, TextDenoiser):
        raise InputError(
            f"train: init is {config.init}, which is no prior of captions; start from one of"
            " `smcdiff train text`"
        )
    start.reader.encoder.require(encoded.encoder, f"train: init, {config.init}")
    units = start.reader.arrays().items()
    return dataclasses.replace(own, **{name: jnp.asarray(value) for name, value in units})


class CaptionedTraining(NamedTuple):
    """What is learned from.

    Attributes:
        pictures: with their captions.
        encoded: the captions.
        reader: puts them into the network's units.
    """

    pictures: Captioned
    encoded: EncodedCaptions
    reader: CaptionReader

    def seen(self, captions: Sequence[str]) -> TextEmbedding:
        """Captions as the network sees them, all of one length."""
        text = self.encoded.lookup(captions, self.reader.encoder, num_tokens=self.reader.num_tokens)
        return self.reader.seen(text)

    def partly_hidden(self, step: int, config: TextTrainConfig) -> tuple[Array, TextEmbedding]:
        """Pictures and captions of one step; a hidden caption has neither tokens nor vector."""
        clean, captions = self.pictures.batch(step, config)
        text = self.seen(captions)
        gone = is_hidden(len(captions), config.caption_dropout, step, config.seed)
        return clean, dataclasses.replace(text, mask=text.mask & ~jnp.asarray(gone)[:, None])


def _learn(
    training: CaptionedTraining,
    folder: Path,
    config: TextTrainConfig,
    noise: Noise,
    progress_bar: bool | Progress,
) -> Learned[TextDenoiser]:
    """Runs the optimiser, with a checkpoint and a picture of draws in the folder."""
    shape, reader = training.pictures.shape, training.reader
    width, pooled_width = reader.states_mean.shape[0], reader.pooled_mean.shape[0]
    network = config.text_network(shape, width, pooled_width)

    def make():
        return PatchedUNet(UNet2DCondition(network, rngs=nnx.Rngs(config.seed)), config.patch)

    graph, params = initial(make, config)

    def show(params):
        prior = DiffusionPrior(
            TextDenoiser(params, reader, graph), noise.sampled, shape, config.target(), probe=False
        )
        _draw_samples(prior, training, config, folder / SAMPLES)

    error = denoising_loss(graph, noise, config)
    loss = Loss(
        lambda params, batch, key: error(params, key, *batch),
        lambda step: training.partly_hidden(step, config),
    )
    checkpoint = folder / CHECKPOINT
    state = minimise(loss, params, config, checkpoint, show=show, progress_bar=progress_bar)
    show(state.ema)
    return Learned(TextDenoiser(state.ema, reader, graph), noise, float(state.seconds))


@jax.jit
def _sample(
    keys: Array, prior: DiffusionPrior, text: TextEmbedding, strengths: Float[Array, " n"]
) -> Float[Array, "n h w c"]:
    return jax.vmap(lambda key, *asked: prior.given(*asked).sample(key))(keys, text, strengths)


def _draw_samples(
    prior: DiffusionPrior, training: CaptionedTraining, config: TextTrainConfig, file: Path
) -> None:
    """Draws of captions that are held out, a column each; two rows a strength, the same noise."""
    if not plots.is_image(prior.event_shape):
        return
    captions = list(dict.fromkeys(training.pictures.held_out(_NUM_HELD_OUT)[1]))[:_NUM_SHOWN]
    strengths = [strength for strength in _STRENGTHS for _ in range(2)]
    every = [(caption, strength) for strength in strengths for caption in captions]
    noise = jax.random.split(jax.random.key(config.seed), 2 * len(captions))
    text = training.encoded.lookup([c for c, _ in every], training.reader.encoder)
    asked = jnp.asarray([strength for _, strength in every], jnp.float32)
    draws = _sample(jnp.concatenate([noise] * len(_STRENGTHS)), prior, text, asked)
    plots.save_captioned(np.asarray(draws), captions, file, scale=4)


def _errors(
    training: CaptionedTraining, learned: Learned[TextDenoiser], config: TextTrainConfig
) -> tuple[DenoisingError, DenoisingError]:
    """By noise level on held-out captions: without the caption, and given it."""
    clean, captions = training.pictures.held_out(_NUM_HELD_OUT)
    text, denoiser = training.seen(captions), learned.denoiser

    def errors(text):
        def output(x, text, t):
            return dataclasses.replace(denoiser, text=text)(x, t)

        outputs = jax.vmap(output, (0, 0, None))
        return held_out_errors(
            lambda x, t: outputs(x, text, t), clean, learned.noise.sampled, config.target()
        )

    return errors(hidden(text)), errors(text)


def _write(
    data: str | Path,
    folder: Path,
    config: TextTrainConfig,
    training: CaptionedTraining,
    learned: Learned[TextDenoiser],
    statistics: Statistics,
) -> None:
    """Writes the folder of the prior."""
    pictures, denoiser, schedule = training.pictures, learned.denoiser, learned.noise.sampled
    plain, given = _errors(training, learned, config)
    prior = DiffusionPrior(
        denoiser, schedule, pictures.shape, config.target(),
        data_variance=statistics.variance, denoising_error=plain,
    )  # fmt: skip
    run = {"command": config.command(Path(data), folder, "text"), "seconds": learned.seconds}
    history = [*earlier_runs(config), run]
    licence = config.licence or pictures.licence
    size = sum(leaf.size for leaf in jax.tree.leaves(denoiser.state))
    encoder = training.reader.encoder
    card = model_card(
        folder.name, dataclasses.replace(config, licence=licence), pictures.description,
        f"U-Net of {size:,} parameters (diffusers' UNet2DConditionModel on {config.patch} x"
        f" {config.patch} pixels folded into channels, with a null token), {config.prediction}"
        f"-prediction, {type(schedule).__name__} schedule. Captions: text encoder"
        f" '{encoder.name}', sha256 of its weights {encoder.weights}; hidden from"
        f" {config.caption_dropout:.0%} of the pictures.",
        history,
        f"Without the caption. {error_table(plain)}\nGiven it. {error_table(given)}\n"
        "Draws of held-out captions, 100 steps, a column each; two rows of strength"
        f" {' and two of '.join(f'{s:g}' for s in _STRENGTHS)}:\n\n![samples]({SAMPLES})\n",
    )  # fmt: skip
    about = {
        "description": config.description,
        "licence": licence,
        "data_norm": statistics.norm,
        "training": dataclasses.asdict(config),
        "history": history,
    }
    save_prior(prior, folder, card=card, about=about)
