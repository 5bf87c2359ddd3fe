"""``smcdiff sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smcdiff.errors import InputError

_CHUNK = 32
"""Draws at a time: few enough that progress shows."""


def sample(
    prior: Annotated[str, typer.Option(help="Name of a shipped prior, or a prior's folder.")] = (
        "mnist"
    ),
    number: Annotated[int, typer.Option("--number", "-n", help="How many draws.")] = 64,
    steps: Annotated[int, typer.Option(help="Reverse diffusion steps.")] = 100,
    label: Annotated[
        int | None, typer.Option(help="Class to draw, where the prior was trained with labels.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random numbers.")] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="New folder for samples.npy and samples.png.")
    ] = Path("smcdiff-samples"),
) -> None:
    """Draw from a prior, without an observation."""
    import jax
    import numpy as np

    from smcdiff import plots
    from smcdiff.cli.output import new_folder
    from smcdiff.progress import ProgressBar
    from smcdiff.zoo import load_prior

    if number < 1:
        raise InputError(f"--number is {number}; it must be at least 1")
    if steps < 2:
        raise InputError(f"--steps is {steps}; a time grid needs at least 2 steps")
    distribution = load_prior(prior)
    if label is not None:
        distribution = distribution.given(label)
    distribution.num_steps = steps
    with new_folder(output) as folder:
        chunk = min(number, _CHUNK)
        draw = jax.jit(lambda key, d: d.sample(key, (chunk,)))
        parts, count = [], -(-number // chunk)
        with ProgressBar(count) as bar:
            for index, key in enumerate(jax.random.split(jax.random.key(seed), count)):
                bar(index, count, {})
                parts.append(np.asarray(draw(key, distribution)))
            bar(count, count, {})
        samples = np.concatenate(parts)[:number]
        np.save(folder / "samples.npy", samples)
        if plots.is_image(distribution.event_shape):
            images = samples.reshape(*samples.shape[:3], -1)
            plots.save_grid(images, folder / "samples.png", columns=8, scale=4)
    typer.echo(f"{number} draws of shape {distribution.event_shape} in {output}")
