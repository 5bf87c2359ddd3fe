"""``smcdiff sample``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import jax
import typer

from smcdiff.cli.drawing import check_numbers, draw_all, drawer, write_samples
from smcdiff.cli.options import LARGEST_SEED
from smcdiff.cli.output import new_folder
from smcdiff.errors import InputError, did_you_mean
from smcdiff.store.prior import load_prior

_SOLVERS = ("ancestral", "dpm", "ode")


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
    check_numbers(number, steps)
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
    draw = drawer(distribution, solver, steps, temperature)
    remedy = "take --strength and --temperature near 1, or another --solver"
    with new_folder(output) as folder:
        write_samples(folder, draw_all(draw, jax.random.key(seed), number, remedy))
    typer.echo(f"{number} draws of shape {distribution.event_shape} in {output}")
