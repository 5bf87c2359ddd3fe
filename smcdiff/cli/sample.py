"""``smcdiff sample``."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import typer
from jaxtyping import Array, PRNGKeyArray

from smcdiff.base._files import write_whole
from smcdiff.base._progress import Progress, ProgressBar
from smcdiff.cli.interrupt import interruptible
from smcdiff.cli.options import LARGEST_SEED
from smcdiff.cli.output import new_folder
from smcdiff.diffusion import flow
from smcdiff.errors import InputError, SamplingError, did_you_mean
from smcdiff.priors import DiffusionPrior
from smcdiff.results import plots
from smcdiff.store.prior import load_prior

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
    seed: Annotated[int, typer.Option(help="Of the random numbers.", min=0, max=LARGEST_SEED)] = 0,
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
    draw = _drawer(distribution, solver, steps, temperature, min(number, _CHUNK))
    with new_folder(output) as folder:
        samples = interruptible(
            lambda progress: _draw_all(draw, jax.random.key(seed), number, progress), ProgressBar()
        )
        if not np.all(np.isfinite(samples)):
            raise SamplingError(
                "draws are NaN or infinite; take --strength and --temperature near 1, or another"
                " --solver"
            )
        content = io.BytesIO()
        np.save(content, samples)
        write_whole(folder / "samples.npy", content.getbuffer())
        if plots.is_image(distribution.event_shape):
            images = samples.reshape(*samples.shape[:3], -1)
            plots.save_grid(images, folder / "samples.png", columns=8, scale=4)
    typer.echo(f"{number} draws of shape {distribution.event_shape} in {output}")


def _drawer(
    prior: DiffusionPrior, solver: str, steps: int, temperature: float, chunk: int
) -> Callable[[PRNGKeyArray], Array]:
    """The compiled function that draws a chunk from a prior."""
    curve = flow.DPMSolver(steps) if solver == "dpm" else flow.ProbabilityFlow()

    @jax.jit
    def draw(key, prior):
        if solver == "ancestral":
            return prior.sample(key, (chunk,))
        return flow.sample(prior, key, (chunk,), solver=curve, temperature=temperature)

    return lambda key: draw(key, prior)


def _draw_all(
    draw: Callable[[PRNGKeyArray], Array], key: PRNGKeyArray, number: int, progress: Progress
) -> np.ndarray:
    """Chunk after chunk, as many as are wanted."""
    count = -(-number // min(number, _CHUNK))
    parts = []
    for index, key_chunk in enumerate(jax.random.split(key, count)):
        progress(index, count, {})
        parts.append(np.asarray(draw(key_chunk)))
    progress(count, count, {})
    return np.concatenate(parts)[:number]
