"""Priors of captions for ``smcdiff draw`` and ``solve --caption``, and what goes around them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager

from smcdiff.cascades import Cascade, Gaussian
from smcdiff.diffusion.thresholding import Dynamic, Static, Threshold
from smcdiff.errors import InputError, did_you_mean
from smcdiff.priors import DiffusionPrior
from smcdiff.store._folder import read_config
from smcdiff.store._text_denoiser import TextDenoiser
from smcdiff.store._upsampling_denoiser import UpsamplingDenoiser
from smcdiff.store.prior import load_prior
from smcdiff.store.shipped import model_folder

_TRAIN = "train one with `smcdiff train text shapes -o FOLDER`"
_TRAIN_UPSAMPLER = "train one with `smcdiff train upsampler shapes -o FOLDER`"
_THRESHOLDS = ("none", "static", "dynamic")
_LOG_SNR, _LARGEST_LOG_SNR = 3.0, 20.0
"""Of the noise on what an upsampler sees: where --log-snr is left out, and at most."""


def check_caption(option: str, caption: str) -> None:
    """Raises ``InputError`` where a caption says nothing."""
    if not caption.strip():
        raise InputError(f"{option} is empty; say what the picture shows: 'two red circles'")


def load_caption_prior(name: str | None) -> DiffusionPrior:
    """The prior of --prior, without a caption.

    Raises:
        InputError: none is named, or one that takes no caption or was given one.
    """
    if name is None:
        raise InputError(f"--prior is missing: the folder of a prior of captions; {_TRAIN}")
    prior = load_prior(name)
    require_captions(prior, name)
    if prior.denoiser.text is not None:
        raise InputError(
            f"--prior {name}: was saved with a caption given; give the folder of the prior itself"
        )
    return prior


def require_captions(prior: DiffusionPrior, name: str) -> None:
    """Raises ``InputError`` unless a prior takes captions."""
    if isinstance(prior.denoiser, UpsamplingDenoiser):
        raise InputError(
            f"--prior {name} is an upsampler, a stage of --cascade; give a prior of captions:"
            f" {_TRAIN}"
        )
    if not isinstance(prior.denoiser, TextDenoiser):
        raise InputError(f"--prior {name} takes no caption; give a prior of captions: {_TRAIN}")


@contextmanager
def naming(option: str) -> Iterator[None]:
    """Names the option whose model refuses a caption."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{option}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Guidance:
    """How strongly a caption guides: of ``smcdiff draw`` --strength, --threshold, --background.

    Attributes:
        strength: of classifier-free guidance.
        threshold: for the guided means.
    """

    strength: float
    threshold: Threshold | None

    @classmethod
    def of(cls, strength: float, threshold: str, background: float | None) -> Guidance:
        """From the command line.

        Raises:
            InputError: numbers out of range, no such threshold, or a background without one.
        """
        if not math.isfinite(strength):
            raise InputError(
                f"--strength is {strength:g}; it must be a finite number, for example 3"
            )
        if threshold not in _THRESHOLDS:
            hint = did_you_mean(threshold, _THRESHOLDS)
            raise InputError(f"--threshold is '{threshold}'; {hint}")
        if threshold != "dynamic":
            if background is not None:
                raise InputError("--background does nothing without --threshold dynamic; add it")
            return cls(strength, Static() if threshold == "static" else None)
        if background is not None and not -1.0 <= background <= 1.0:
            raise InputError(
                f"--background is {background:g}; it must lie between black, -1, and white, 1"
            )
        return cls(strength, Dynamic(background=0.0 if background is None else background))

    @property
    def is_heuristic(self) -> bool:
        """Whether draws without weights are those of no prior, with or without the caption."""
        return self.strength not in (0.0, 1.0)

    def given(self, prior: DiffusionPrior, caption: str) -> DiffusionPrior:
        """The prior guided by a caption; strength 1 costs no second evaluation."""
        return prior.given(caption, None if self.strength == 1.0 else self.strength, self.threshold)


def load_cascade(
    names: str | None, log_snr: float | None, prior: DiffusionPrior, steps: int
) -> Cascade | None:
    """The cascade of --cascade over a prior.

    Args:
        names: folders of upsamplers with commas between them, from the lowest resolution; or None.
        log_snr: of the noise on what upsamplers see, infinite for none; None is a default.
        prior: the base.
        steps: reverse diffusion steps of each.

    Raises:
        InputError: a folder that is no upsampler, or not of the resolution of the stage below it; a
            noise level that it was not trained with.
    """
    if names is None:
        if log_snr is not None:
            raise InputError("--log-snr goes with --cascade; add it, or leave --log-snr out")
        return None
    log_snr = _LOG_SNR if log_snr is None else log_snr
    if not (-_LARGEST_LOG_SNR <= log_snr <= _LARGEST_LOG_SNR or log_snr == math.inf):
        raise InputError(
            f"--log-snr is {log_snr:g}; it lies between {-_LARGEST_LOG_SNR:g} and"
            f" {_LARGEST_LOG_SNR:g}, for example 3, or is inf for no noise"
        )
    shape, stages = prior.event_shape, []
    for name in names.split(","):
        upsampler = _load_upsampler(name.strip(), shape, log_snr)
        upsampler.num_steps = steps
        stages.append(upsampler)
        shape = upsampler.event_shape
    return Cascade(prior, tuple(stages), None if log_snr == math.inf else Gaussian(log_snr))


def _load_upsampler(name: str, below: tuple[int, ...], log_snr: float) -> DiffusionPrior:
    if not name:
        raise InputError(
            "--cascade: a folder is missing; give those of upsamplers with commas between them"
        )
    upsampler = load_prior(name)
    if not isinstance(upsampler.denoiser, UpsamplingDenoiser):
        raise InputError(f"--cascade {name}: is a prior, and no upsampler; {_TRAIN_UPSAMPLER}")
    low = upsampler.denoiser.low.image.shape
    if low != below:
        raise InputError(
            f"--cascade {name}: raises pictures of {_size(low)}, and the stage below it makes"
            f" {_size(below)}; give upsamplers in order, from the lowest resolution"
        )
    training = read_config(model_folder(name)).get("training", {})
    least = training.get("log_snr", -math.inf)
    if log_snr < least:
        raise InputError(
            f"--log-snr is {log_snr:g}: {name} was trained with noise of log-SNR {least:g} at the"
            " least, which is more noise than it knows; give a larger one"
        )
    return upsampler


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in shape)
