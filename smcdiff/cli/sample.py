"""``smcdiff sample``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from smcdiff.errors import InputError, did_you_mean

_CHUNK = 32
"""Draws at a time: few enough that progress shows."""

_SOLVERS = ("ancestral", "dpm", "ode")
_MOST = 2**31 - 1


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
    seed: Annotated[int, typer.Option(help="Of the random numbers.", min=0, max=2**32 - 1)] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="New folder for samples.npy and samples.png.")
    ] = Path("smcdiff-samples"),
) -> None:
    """Draw from a prior, without an observation.

    Writes samples.npy, (number, *shape of an event) in the prior's units (images: black -1, white
    1), and samples.png into a new folder.

    Examples: `smcdiff sample --number 16`; `smcdiff sample --prior mnist-classes --label 3
    --strength 2 --solver dpm --steps 20`.
    """
    import jax
    import numpy as np

    from smcdiff.base.files import replacing
    from smcdiff.base.progress import ProgressBar
    from smcdiff.cli.interrupt import interruptible
    from smcdiff.cli.output import new_folder
    from smcdiff.priors import flow
    from smcdiff.results import plots
    from smcdiff.store.zoo import load_prior

    if not 1 <= number <= _MOST:
        raise InputError(f"--number is {number}; it must be at least 1, and at most {_MOST}")
    if not 2 <= steps <= _MOST:
        raise InputError(f"--steps is {steps}; a time grid needs 2 steps or more, up to {_MOST}")
    if solver not in _SOLVERS:
        raise InputError(f"--solver is '{solver}'; {did_you_mean(solver, _SOLVERS)}")
    if not 0.0 < temperature < math.inf:
        raise InputError(f"--temperature is {temperature:g}; it must be positive")
    if solver == "ancestral" and temperature != 1.0:
        raise InputError("--temperature needs --solver dpm or --solver ode")
    if label is None and strength is not None:
        raise InputError("--strength guides towards a class; name it with --label")
    if strength is not None and not math.isfinite(strength):
        raise InputError(f"--strength is {strength:g}; it must be a finite number, for example 2")
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

        def draw_all():
            parts, count = [], -(-number // chunk)
            with ProgressBar(count) as bar:
                for index, key in enumerate(jax.random.split(jax.random.key(seed), count)):
                    bar(index, count, {})
                    parts.append(np.asarray(draw(key, distribution)))
                bar(count, count, {})
            return np.concatenate(parts)[:number]

        samples = interruptible(draw_all)
        with replacing(folder / "samples.npy") as temporary:
            np.save(temporary, samples)
        if plots.is_image(distribution.event_shape):
            images = samples.reshape(*samples.shape[:3], -1)
            plots.save_grid(images, folder / "samples.png", columns=8, scale=4)
    typer.echo(f"{number} draws of shape {distribution.event_shape} in {output}")
