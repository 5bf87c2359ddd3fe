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
    strength: Annotated[
        float | None,
        typer.Option(help="Classifier-free guidance towards --label; left out: the class's prior."),
    ] = None,
    solver: Annotated[
        str, typer.Option(help="ancestral, dpm (20 --steps suffice) or ode (to a tolerance).")
    ] = "ancestral",
    temperature: Annotated[
        float, typer.Option(help="Factor on x_T, with dpm and ode; below 1: more typical draws.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the random numbers.")] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="New folder for samples.npy and samples.png.")
    ] = Path("smcdiff-samples"),
) -> None:
    """Draw from a prior, without an observation."""
    import jax
    import numpy as np

    from smcdiff import flow, plots
    from smcdiff.cli.output import new_folder
    from smcdiff.progress import ProgressBar
    from smcdiff.zoo import load_prior

    if number < 1:
        raise InputError(f"--number is {number}; it must be at least 1")
    if steps < 2:
        raise InputError(f"--steps is {steps}; a time grid needs at least 2 steps")
    if solver not in ("ancestral", "dpm", "ode"):
        raise InputError(f"--solver is '{solver}'; choose from ancestral, dpm, ode")
    if solver == "ancestral" and temperature != 1.0:
        raise InputError("--temperature needs --solver dpm or --solver ode")
    if label is None and strength is not None:
        raise InputError("--strength guides towards a class; name it with --label")
    distribution = load_prior(prior)
    if label is not None:
        distribution = distribution.given(label, strength)
    distribution.num_steps = steps
    with new_folder(output) as folder:
        chunk = min(number, _CHUNK)
        curve = flow.DPMSolver(steps) if solver == "dpm" else flow.ProbabilityFlow()

        @jax.jit
        def draw(key, distribution):
            if solver == "ancestral":
                return distribution.sample(key, (chunk,))
            return flow.sample(distribution, key, (chunk,), solver=curve, temperature=temperature)

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
