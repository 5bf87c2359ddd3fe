"""Training towers of pictures and captions, and the folder of what was learned.

Pictures of a batch are told apart by their captions and the reverse (Radford et al. 2021); each
picture is told apart from captions that differ from its own by one word as well. The text encoder
is frozen: learned are a tower for pictures and a head on what the encoder gives.
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
from jaxtyping import Array, Bool, Float

from smcdiff.base._progress import Progress
from smcdiff.diffusion import schedules
from smcdiff.errors import InputError
from smcdiff.networks._clip import ClipNetwork
from smcdiff.store._captions import CaptionReader
from smcdiff.store._picture_reader import EFFICIENTNET
from smcdiff.store.clip import Clip, save_clip
from smcdiff.store.image_features import ImageFeatures, load_image_features
from smcdiff.text.embedding import TextEmbedding
from smcdiff.training._alternatives import Alternatives
from smcdiff.training._captioned import Captioned, captioned
from smcdiff.training._cards import accuracy_table, model_card
from smcdiff.training._contrastive import contrastive_loss
from smcdiff.training._folder import CHECKPOINT, training_folder
from smcdiff.training._frozen import FrozenPictures
from smcdiff.training._loop import Loss, minimise
from smcdiff.training._noise import Noise, noisy
from smcdiff.training._statistics import Statistics
from smcdiff.training.clip_config import ClipTrainConfig
from smcdiff.training.text import CaptionedTraining, encoded_captions

_NUM_HELD_OUT = 1024
"""Pictures that the temperature is fitted on, and as many that it is judged on."""
_STREAM = 0xC119
"""Separates the choice of wrong captions from what else is drawn."""


def train_clip(
    data: str | Path,
    output: str | Path,
    config: ClipTrainConfig | None = None,
    *,
    progress_bar: bool | Progress = True,
) -> Path:
    """Trains towers of pictures and captions, and writes their folder.

    Captions are encoded once, into a file that is read again when a run goes on. Runs that were
    killed resume from the last checkpoint in ``output``, to the same weights. Neither held-out
    captions nor any picture of them is seen, as wrong captions either.

    Args:
        data: "shapes" for `smcdiff.shapes`, drawn without end; or pictures and their captions, see
            `smcdiff.training._captioned.CaptionedFiles`.
        output: folder of the towers: config.json, model.safetensors, card.md, and
            captions.safetensors unless ``config.captions`` names another file.
        config: what to train.
        progress_bar: show progress; or a callable ``progress(t, num_steps, info)``, called after
            every step, which may raise to end the run there.

    Returns:
        The folder, which `smcdiff.load_clip` reads.

    Raises:
        InputError: data or options that cannot be used; a text encoder that is missing, or another
            one than that of the file of captions; a folder that holds a finished model.
    """
    config = ClipTrainConfig() if config is None else config
    pictures = captioned(data, config)
    features = _features(pictures, config)
    noise = None
    if config.noise_conditional:
        noise = Noise.of(Statistics.of(pictures.name, pictures.some(2000)))
    with training_folder(output) as folder:
        encoded = encoded_captions(pictures.every_caption(), folder, config)
        trained = pictures.trained_captions()
        reader = CaptionReader.of(encoded, trained, config.encoder, pictures.grammar)
        training = CaptionedTraining(pictures, encoded, reader)
        frozen = None
        if features is not None:
            file = config.image_features_file
            kept = None if file is None else Path(file)
            frozen = FrozenPictures.of(pictures, features, kept, progress_bar)
        clip, seconds = _learn(training, frozen, folder, config, noise, progress_bar)
        judged = _Judged.of(clip, pictures)
        _write(data, folder, config, training, judged, seconds)
    return folder


def _features(pictures: Captioned, config: ClipTrainConfig) -> ImageFeatures | None:
    """The frozen features, if such are wanted.

    Raises:
        InputError: pictures that the tower cannot take, before captions are encoded; a package that
            is missing.
    """
    if config.image_features is None:
        config.network(pictures.shape)
        return None
    if pictures.shape[-1] not in (1, 3):
        raise InputError(
            f"train: {pictures.name} has pictures of {pictures.shape[-1]} channels, and the frozen"
            " features are of colours or of grey; leave --image-features out"
        )
    return load_image_features()


class _Batch(NamedTuple):
    """What one step sees.

    Attributes:
        clean: pictures, or their frozen features in standard units.
        text: their captions, and after those the wrong ones of each.
        same: which pairs have the same caption.
        is_negative: which of the wrong captions there are.
    """

    clean: Float[Array, " b *seen"]
    text: TextEmbedding
    same: Bool[Array, "b b"]
    is_negative: Bool[Array, "b k"]


class _Batches:
    """The batches of a training, each a function of the seed and the step."""

    def __init__(
        self,
        training: CaptionedTraining,
        config: ClipTrainConfig,
        frozen: FrozenPictures | None = None,
    ):
        """Finds the wrong captions of every caption: those that are learned from themselves."""
        self.training, self.config = training, config
        self.pictures = training.pictures if frozen is None else frozen
        trained = set(training.pictures.trained_captions())
        self.changed = {
            caption: [other for other in training.pictures.changed(caption) if other in trained]
            for caption in trained
        }

    def __call__(self, step: int) -> _Batch:
        """The batch of one step."""
        clean, captions = self.pictures.batch(step, self.config)
        negatives, is_negative = self._negatives(captions, step)
        names = np.array(captions)
        return _Batch(
            clean, self.training.seen([*captions, *negatives]),
            jnp.asarray(names[:, None] == names[None]), jnp.asarray(is_negative),
        )  # fmt: skip

    def _negatives(self, captions: Sequence[str], step: int) -> tuple[list[str], np.ndarray]:
        """Some wrong captions of each, and which of them there are: a caption may have few."""
        most = max(map(len, self.changed.values()))
        number = min(self.config.negatives, most)
        random = np.random.default_rng([self.config.seed, step, _STREAM])
        chosen, is_there = [], np.zeros((len(captions), number), bool)
        for row, caption in enumerate(captions):
            others = self.changed[caption]
            order = random.permutation(len(others))[:number]
            is_there[row, : len(order)] = True
            # The caption itself fills the places that are not looked at.
            chosen += [others[i] for i in order] + [caption] * (number - len(order))
        return chosen, is_there


def _learn(
    training: CaptionedTraining,
    frozen: FrozenPictures | None,
    folder: Path,
    config: ClipTrainConfig,
    noise: Noise | None,
    progress_bar: bool | Progress,
) -> tuple[Clip, float]:
    """The towers with their averaged weights, and the wall time."""
    shape, reader = training.pictures.shape, training.reader
    image_width = None if frozen is None else frozen.reader.mean.shape[0]
    made = config.towers(
        shape, reader.states_mean.shape[0], reader.pooled_mean.shape[0], image_width
    )
    graph, params = nnx.split(nnx.jit(lambda: ClipNetwork(made, rngs=nnx.Rngs(config.seed)))())
    prediction, weighting = config.target(), config.level_weighting()

    def value(params, batch, key):
        network, count = nnx.merge(graph, params), len(batch.clean)
        x, text = _partly_hidden(key, batch, config.dropout, frozen is not None)
        times = jnp.zeros(count)
        if noise is not None:
            x, _, times = noisy(key, x, noise.trained, weighting, prediction)
        images = network.image(x, schedules.TIMESTEPS * times)
        texts = network.text(text)
        wrong = texts[count:].reshape(count, -1, texts.shape[-1])
        return contrastive_loss(
            network.scale * (images @ texts[:count].T), batch.same,
            network.scale * jnp.einsum("bf,bkf->bk", images, wrong), batch.is_negative,
        )  # fmt: skip

    loss = Loss(value, _Batches(training, config, frozen))
    state = minimise(loss, params, config, folder / CHECKPOINT, progress_bar=progress_bar)
    schedule = None if noise is None else noise.sampled
    pictures = None if frozen is None else frozen.reader
    clip = Clip(state.ema, reader, jnp.float32(1.0), schedule, graph, shape, pictures)
    return clip, float(state.seconds)


def _partly_hidden(
    key: Array, batch: _Batch, share: float, has_features: bool
) -> tuple[Array, TextEmbedding]:
    """Frozen vectors with a random share of their entries zero, and the rest enlarged."""
    if not share:
        return batch.clean, batch.text
    keys = jax.random.split(jax.random.fold_in(key, _STREAM), 3)

    def dropped(key, values):
        is_kept = jax.random.bernoulli(key, 1.0 - share, values.shape)
        return jnp.where(is_kept, values / (1.0 - share), 0.0)

    text = dataclasses.replace(
        batch.text,
        states=dropped(keys[0], batch.text.states),
        pooled=dropped(keys[1], batch.text.pooled),
    )
    return dropped(keys[2], batch.clean) if has_features else batch.clean, text


class _Judged(NamedTuple):
    """Towers with their temperature, and how good they are on captions that they have not seen.

    Attributes:
        clip: the towers, with the temperature that was fitted.
        alternatives: what captions are told apart from.
        accuracies: share of the pictures whose own caption scores above every alternative, by
            log-SNR; of clean pictures under None.
        log_loss: of pictures that the temperature was not fitted on, in nat.
    """

    clip: Clip
    alternatives: str
    accuracies: dict[float | None, float]
    log_loss: float

    @classmethod
    def of(cls, clip: Clip, pictures: Captioned) -> _Judged:
        """Fits the temperature on one half of some held-out pictures, and judges on the other.

        A noise-conditional tower has one temperature for all levels, fitted on all of them.
        """
        clean, captions = pictures.held_out(2 * _NUM_HELD_OUT)
        others, alternatives = _others(pictures, captions)
        half = len(clean) // 2
        fitted, judged = slice(0, half or None), slice(half, None)

        def scores(part: slice, log_snr: Float[Array, " n"] | None) -> Alternatives:
            x, times = _at(clip, clean[part], log_snr)
            return Alternatives.of(clip, x, captions[part], others[part], times)

        own = scores(fitted, _levels(clip, clean[fitted]))
        temperature = own.temperature()
        rest = scores(judged, _levels(clip, clean[judged]))
        accuracies: dict[float | None, float] = {None: scores(judged, None).accuracy}
        if clip.schedule is not None:
            for at in range(-8, 9, 2):
                levels = jnp.full(len(clean[judged]), float(at))
                accuracies[float(at)] = scores(judged, levels).accuracy
        fit = dataclasses.replace(clip, temperature=jnp.float32(temperature))
        return cls(fit, alternatives, accuracies, rest.log_loss(temperature))


def _images_in_words(clip: Clip) -> str:
    """The tower of pictures, for the card."""
    if clip.pictures is None:
        kind = "clean" if clip.schedule is None else "noisy"
        return f"the descending half of a U-Net for {kind} pictures"
    frozen = clip.pictures.features
    return (
        f"dense layers on the frozen features {EFFICIENTNET} of clean pictures, resized to"
        f" {frozen.size} x {frozen.size} (sha256 of their weights {frozen.weights})"
    )


def _others(pictures: Captioned, captions: Sequence[str]) -> tuple[list[list[str]], str]:
    """What each held-out caption is told apart from, and what that is in words."""
    if pictures.grammar is not None:
        changes = {caption: list(pictures.changed(caption)) for caption in set(captions)}
        return [changes[caption] for caption in captions], "all captions that differ by one word"
    every = list(dict.fromkeys(captions))
    rest = [[other for other in every if other != caption] for caption in captions]
    return rest, f"the others of {len(every)} held-out captions"


def _levels(clip: Clip, clean: Float[Array, "n h w c"]) -> Float[Array, " n"] | None:
    """An even grid of log-SNR, for a noise-conditional tower."""
    return None if clip.schedule is None else jnp.linspace(-8.0, 8.0, len(clean))


def _at(
    clip: Clip, clean: Float[Array, "n h w c"], log_snr: Float[Array, " n"] | None
) -> tuple[Array, Array | None]:
    """Pictures with noise of some levels, and the times of these."""
    if clip.schedule is None or log_snr is None:
        return clean, None
    times = clip.schedule.time(log_snr)
    level = clip.schedule.level(times[:, None, None, None])
    eps = jax.random.normal(jax.random.key(0), clean.shape)
    return level.alpha * clean + level.sigma * eps, times


def _write(
    data: str | Path,
    folder: Path,
    config: ClipTrainConfig,
    training: CaptionedTraining,
    judged: _Judged,
    seconds: float,
) -> None:
    """Writes the folder of the towers."""
    pictures, clip, encoder = training.pictures, judged.clip, training.reader.encoder
    history = [{"command": config.command(Path(data), folder, "clip"), "seconds": seconds}]
    licence = config.licence or pictures.licence
    size = sum(leaf.size for leaf in jax.tree.leaves(clip.state))
    by_level = {at: value for at, value in judged.accuracies.items() if at is not None}
    card = model_card(
        folder.name, dataclasses.replace(config, licence=licence), pictures.description,
        f"Towers of {size:,} parameters: {_images_in_words(clip)}, and a head on the text encoder"
        f" '{encoder.name}', sha256 of its weights {encoder.weights}. Cosines are multiplied by"
        f" {float(clip.scale):.1f}.",
        history,
        f"Of held-out captions' clean pictures {judged.accuracies[None]:.1%} score their caption"
        f" above {judged.alternatives}. Probabilities: scores over a temperature of"
        f" {float(clip.temperature):.3f}, fitted on held-out pictures"
        f"{' of log-SNR -8 to 8' if by_level else ''}; log loss of others"
        f" {judged.log_loss:.4f} nat.\n" + (f"\n{accuracy_table(by_level)}" if by_level else ""),
    )  # fmt: skip
    about = {
        "description": config.description,
        "licence": licence,
        "training": dataclasses.asdict(config),
        "history": history,
    }
    save_clip(clip, folder, card, about)
