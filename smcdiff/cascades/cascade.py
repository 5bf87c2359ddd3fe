"""`Cascade`: a prior at a low resolution, and upsamplers that are given what the stage below draws.

For draws, and as the sites of a model: what each stage draws is a site whose prior depends on the
sites before it, so that one filter carries all resolutions and its weights are those of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import Module
from smcdiff.cascades.augmentation import Augmentation, LowResolution
from smcdiff.diffusion.thresholding import Threshold
from smcdiff.errors import InputError
from smcdiff.priors import Prior


@runtime_checkable
class Upsampler(Protocol):
    """A prior of a high resolution that can be given a low one."""

    def given(self, condition: Any, strength: Any = None) -> Prior:
        """The prior given a `LowResolution`, or given a caption."""
        ...


class Cascade(Module):
    """A prior of a low resolution, and what raises it, stage by stage (Ho et al. 2022).

    A stage may be a function without arguments that returns it, as
    ``lambda: smcdiff.load_prior("upsampler")``: `sample` and `upsample` call it when its turn comes
    and drop what it gave before the next one, so that no two stages are in memory at once. A filter
    needs all of them at once: `sites` takes priors only.

    Attributes:
        base: prior of the lowest resolution.
        upsamplers: of each further resolution, from below: priors whose ``given`` takes a
            `LowResolution`, as `smcdiff train upsampler` learns them, or `AnalyticUpsampler`.
        augmentation: noise on what an upsampler sees, `Gaussian` or `Truncated`; None is none.

    Raises:
        InputError: no upsampler, or parts of another kind.
    """

    base: Any
    upsamplers: tuple[Any, ...]
    augmentation: Augmentation | Any = None  # whose error names the remedy

    def __post_init__(self):
        stages = (self.base, *self.upsamplers)
        wrong = [s for s in stages if not isinstance(s, Upsampler) and not callable(s)]
        if wrong or not self.upsamplers:
            found = f"a {type(wrong[0]).__name__} among its stages" if wrong else "no upsampler"
            raise InputError(
                f"Cascade: there is {found}; give a prior, and a tuple of upsamplers (or functions"
                " that load them)"
            )
        if not isinstance(self.augmentation, Augmentation | None):
            raise InputError(
                f"Cascade: augmentation is {self.augmentation!r}; give cascades.Gaussian(log_snr),"
                " cascades.Truncated(log_snr) or None"
            )

    def given(
        self,
        caption: Any,
        strength: Float[Array, ""] | float | None = None,
        threshold: Threshold | None = None,
        *,
        upsamplers: bool = False,
    ) -> Cascade:
        """The cascade of a caption, or of a class.

        Args:
            caption: what the base was trained with.
            strength: of classifier-free guidance, see `DiffusionPrior.given`.
            threshold: for the base's means. Upsamplers keep their own: `thresholding.Dynamic`
                changes the brightness, which the low resolution has decided already.
            upsamplers: give the caption and the strength to the upsamplers, too, where they were
                trained with captions.
        """
        base = _later(self.base, lambda prior: prior.given(caption, strength, threshold))
        stages = self.upsamplers
        if upsamplers:
            stages = tuple(_later(s, lambda stage: stage.given(caption, strength)) for s in stages)
        return Cascade(base, stages, self.augmentation)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of the highest resolution, one stage after the other.

        Args:
            key: random key.
            sample_shape: how many.

        Returns:
            ``sample_shape`` and the shape of the last stage's event.
        """
        key_base, key = jax.random.split(key)
        keys = jax.random.split(key_base, math.prod(sample_shape))
        return self._raised(key, _draw(keys, _loaded(self.base), self.augmentation), sample_shape)

    def upsample(
        self, key: PRNGKeyArray, low: Float[Array, "*batch_event"], num_axes: int = 0
    ) -> Array:
        """A draw of the highest resolution for each of some low ones, as a filter's particles.

        They are noised as `Gaussian` does, by `Truncated` as well: they have no noise yet.

        Args:
            key: random key.
            low: of the base's resolution, without noise.
            num_axes: how many leading axes of ``low`` count the pictures.
        """
        shape, clean = low.shape[:num_axes], low.reshape(-1, *low.shape[num_axes:])
        key_noise, key = jax.random.split(key)
        if self.augmentation is not None:
            keys = jax.random.split(key_noise, len(clean))
            noise = partial(LowResolution.noised, log_snr=self.augmentation.log_snr)
            clean = jax.vmap(lambda key, image: noise(key, image).image)(keys, clean)
        return self._raised(key, clean, shape)

    def _raised(
        self, key: PRNGKeyArray, images: Float[Array, " n *event"], shape: tuple[int, ...]
    ) -> Array:
        """Low resolutions, as the first upsampler sees them, through all of them."""
        last = len(self.upsamplers) - 1
        log_snr = math.inf if self.augmentation is None else self.augmentation.log_snr
        for index, stage in enumerate(self.upsamplers):
            keys = jax.random.split(jax.random.fold_in(key, index), len(images))
            between = None if index == last else self.augmentation
            images = _draw_given(keys, _loaded(stage), images, log_snr, between)
        return images.reshape(*shape, *images.shape[1:])

    def sites(self, name: str) -> Array:
        """Declares the stages as sites of a NumPyro model, in order, and returns the last value.

        The last site has the name, those before it ``name_0``, ``name_1``, ..., and noised ones
        ``name_0_noised``, ... With `Truncated` there are the noised ones only.

        Args:
            name: of the highest resolution.

        Returns:
            Its value.

        Raises:
            InputError: a stage that is still to be loaded.
        """
        if not all(isinstance(stage, Upsampler) for stage in (self.base, *self.upsamplers)):
            raise InputError(
                f"site '{name}': a stage of the cascade is a function that loads it, but a filter"
                " carries all stages at once; give Cascade the priors themselves"
            )
        prior = self.base
        for index, stage in enumerate(self.upsamplers):
            site = f"{name}_{index}"
            if self.augmentation is None:
                low = LowResolution(jnp.asarray(numpyro.sample(site, prior)))
            else:
                low = self.augmentation.declare(site, prior)
            prior = stage.given(low)
        return jnp.asarray(numpyro.sample(name, prior))


def _later(stage: Any, change: Callable[[Any], Any]) -> Any:
    """The change of a stage, at once or when it is loaded."""
    return change(stage) if isinstance(stage, Upsampler) else lambda: change(stage())


def _loaded(stage: Any) -> Any:
    return stage if isinstance(stage, Upsampler) else stage()


def _one(key: PRNGKeyArray, prior: Prior, augmentation: Augmentation | None) -> Array:
    """A draw, as the next stage sees it."""
    return prior.sample(key) if augmentation is None else augmentation.draw(key, prior).image


@jax.jit
def _draw(keys: Array, prior: Prior, augmentation: Augmentation | None) -> Array:
    return jax.vmap(lambda key: _one(key, prior, augmentation))(keys)


@partial(jax.jit, static_argnames="log_snr")
def _draw_given(
    keys: Array, stage: Any, images: Array, log_snr: float, augmentation: Augmentation | None
) -> Array:
    def draw(key, image):
        return _one(key, stage.given(LowResolution(image, log_snr)), augmentation)

    return jax.vmap(draw)(keys, images)
