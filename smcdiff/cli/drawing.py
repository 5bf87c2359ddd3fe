"""Draws of a prior for `sample` and `draw`: some at a time, so that progress shows; their files."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base._files import write_whole
from smcdiff.base._progress import Progress, ProgressBar
from smcdiff.cascades import Cascade
from smcdiff.cli.interrupt import interruptible
from smcdiff.diffusion import flow
from smcdiff.errors import InputError, SamplingError
from smcdiff.priors import DiffusionPrior
from smcdiff.results import plots

_CHUNK = 32
"""Draws at a time: few enough that progress shows."""
_MOST = 2**31 - 1

Draw = Callable[[PRNGKeyArray, np.ndarray], Array]
"""``draw(key, rows)``: a draw for each of these rows of the result."""


def check_numbers(number: int, steps: int) -> None:
    """Raises ``InputError`` where --number or --steps is out of range."""
    if not 1 <= number <= _MOST:
        raise InputError(f"--number is {number}; it must be at least 1, and at most {_MOST}")
    if not 2 <= steps <= _MOST:
        raise InputError(f"--steps is {steps}; a time grid needs 2 steps or more, up to {_MOST}")


def drawer(
    prior: DiffusionPrior, solver: str = "ancestral", steps: int = 20, temperature: float = 1.0
) -> Draw:
    """The compiled function that draws from a prior.

    Args:
        prior: whose ``num_steps`` are those of ancestral sampling.
        solver: ancestral, dpm or ode.
        steps: of dpm.
        temperature: factor on x_T, with dpm and ode.
    """
    curve = flow.DPMSolver(steps) if solver == "dpm" else flow.ProbabilityFlow()

    @partial(jax.jit, static_argnames="count")
    def draw(key, prior, count):
        if solver == "ancestral":
            return prior.sample(key, (count,))
        return flow.sample(prior, key, (count,), solver=curve, temperature=temperature)

    return lambda key, rows: draw(key, prior, len(rows))


def draw_all(
    draw: Draw, key: PRNGKeyArray, number: int, remedy: str, description: str = "Sampling"
) -> np.ndarray:
    """Chunk after chunk, as many draws as are wanted; Ctrl-C ends it.

    Args:
        draw: of a chunk.
        key: random key.
        number: how many.
        remedy: what to do where draws are not finite.
        description: for the progress.

    Raises:
        SamplingError: draws that are NaN or infinite.
    """
    chunk = min(number, _CHUNK)
    count = -(-number // chunk)
    # The last chunk is filled up with the first rows, for one size is compiled for.
    rows = (np.arange(count * chunk) % number).reshape(count, chunk)

    def run(progress: Progress) -> np.ndarray:
        parts = []
        for index, key_chunk in enumerate(jax.random.split(key, count)):
            progress(index, count, {})
            parts.append(np.asarray(draw(key_chunk, rows[index])))
        progress(count, count, {})
        return np.concatenate(parts)[:number]

    samples = interruptible(run, ProgressBar(description))
    if not np.all(np.isfinite(samples)):
        raise SamplingError(f"draws are NaN or infinite; {remedy}")
    return samples


def raise_all(cascade: Cascade, key: PRNGKeyArray, low: np.ndarray) -> np.ndarray:
    """A draw of the highest resolution for each of (n, h, w, c) low ones; Ctrl-C ends it.

    Raises:
        SamplingError: draws that are NaN or infinite.
    """

    def draw(key: PRNGKeyArray, rows: np.ndarray) -> Array:
        return cascade.upsample(key, jnp.asarray(low[rows]), 1)

    remedy = "give --cascade upsamplers of the same pictures as the prior's"
    return draw_all(draw, key, len(low), remedy, "Raising the resolution")


def write_samples(folder: Path, samples: Float[np.ndarray, " n *event"]) -> list[Path]:
    """Writes samples.npy and, of images, samples.png.

    Returns:
        The files.
    """
    files = [folder / "samples.npy"]
    content = io.BytesIO()
    np.save(content, samples)
    write_whole(files[0], content.getbuffer())
    if plots.is_image(samples.shape[1:]):
        files.append(folder / "samples.png")
        images = samples.reshape(*samples.shape[:3], -1)
        plots.save_grid(images, files[1], columns=8, scale=4)
    return files
