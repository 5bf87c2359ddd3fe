"""``smcdiff solve inpaint | deblur | super-resolve``."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from smcdiff.cli.problems import Degradation, Problem
from smcdiff.errors import InputError


def solve(
    problem: Annotated[
        Problem,
        typer.Argument(
            help="inpaint: part of the image is hidden; deblur: it is blurred; super-resolve: it"
            " is averaged over blocks; colourise: only the mean of its channels is seen; fourier:"
            " only some of its Fourier coefficients are (MRI, interferometry)."
        ),
    ],
    image: Annotated[
        Path | None,
        typer.Argument(
            help="The observation, a PNG or .npy file; with --simulate a clean image, which is"
            " degraded first. Left out: a real digit that no training has seen, degraded."
        ),
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="IMAGE is the truth: degrade it, then solve.")
    ] = False,
    truth: Annotated[Path | None, typer.Option(help="The true image, to compare with.")] = None,
    digit: Annotated[
        int, typer.Option(help="Where IMAGE is left out: which digit, 0 to 9.", min=0, max=9)
    ] = 3,
    mask: Annotated[
        Path | None,
        typer.Option(help="inpaint: PNG or .npy; white (1) is observed, black (0) is hidden."),
    ] = None,
    hide: Annotated[
        str,
        typer.Option(help="inpaint without --mask: left, right, top, bottom, centre or random."),
    ] = "right",
    keep: Annotated[
        float,
        typer.Option(help="inpaint --hide random, fourier: the observed part, in (0, 1]."),
    ] = 0.3,
    width: Annotated[
        float, typer.Option(help="deblur: standard deviation of the Gaussian, in pixels.")
    ] = 2.0,
    motion: Annotated[
        float | None,
        typer.Option(help="deblur: length of a motion blur in pixels, instead of the Gaussian."),
    ] = None,
    angle: Annotated[
        float, typer.Option(help="deblur --motion: its direction, degrees from the horizontal.")
    ] = 45.0,
    factor: Annotated[int, typer.Option(help="super-resolve: side of a block, in pixels.")] = 4,
    bicubic: Annotated[
        bool, typer.Option("--bicubic", help="super-resolve: bicubic instead of block means.")
    ] = False,
    noise: Annotated[
        float,
        typer.Option(help="Standard deviation of the observation's noise; black is -1, white 1."),
    ] = 0.1,
    value_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--range", help="Black and white in the files; else 0 255 for 8 bit, -1 1 for floats."
        ),
    ] = None,
    prior: Annotated[str, typer.Option(help="Name of a shipped prior, or a prior's folder.")] = (
        "mnist"
    ),
    proposal: Annotated[
        str,
        typer.Option(
            help="auto chooses from the problem's structure and says why; or a sampler's name, for"
            " example bootstrap, twisted, krylov-moment-matched, mcgdiff, repaint, dps or ddrm."
        ),
    ] = "auto",
    unweighted: Annotated[
        bool, typer.Option("--unweighted", help="Switch the weights off: the plain heuristic.")
    ] = False,
    particles: Annotated[int, typer.Option("--particles", "-n", help="Particles a chain.")] = 64,
    steps: Annotated[int, typer.Option(help="Reverse diffusion steps.")] = 100,
    chains: Annotated[
        int, typer.Option(help="Independent runs; their spread is the Monte-Carlo error.")
    ] = 2,
    seed: Annotated[int, typer.Option(help="Of the random numbers.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="New folder for posterior.nc and solution.png; else smcdiff-PROBLEM.",
        ),
    ] = None,
) -> None:
    """Solve an imaging problem: a weighted posterior, its evidence, and a picture.

    Writes posterior.nc (open it with smcdiff.Posterior.load or xarray.open_datatree) and
    solution.png, and prints a summary. Images have the size of the prior's: 28 x 28 for mnist.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from smcdiff import SMC
    from smcdiff.cli.output import new_folder
    from smcdiff.zoo import load_prior

    if not (noise > 0 and np.isfinite(noise)):
        raise InputError(f"--noise is {noise:g}; it must be positive")
    if truth is not None and (image is None or simulate):
        raise InputError("--truth goes with an IMAGE that is an observation, not with --simulate")
    distribution = load_prior(prior)
    key_noise, key_run = jax.random.split(jax.random.key(seed))
    key_mask = jax.random.fold_in(key_noise, 1)
    degraded = Degradation(mask, hide, keep, width, motion, angle, factor, bicubic)
    operator = degraded.operator(problem, distribution.event_shape, key_mask)
    if image is not None and not simulate:
        y = _observation(image, problem, operator, value_range, 6 * noise)
        clean = None if truth is None else _read(truth, operator.in_shape, value_range)
    else:
        clean = (
            _bundled(prior, digit)
            if image is None
            else _read(image, operator.in_shape, value_range)
        )
        y = operator(jnp.asarray(clean))
        y = np.asarray(y + noise * jax.random.normal(key_noise, y.shape))
    smc = SMC(
        _model, _proposal(proposal), num_particles=particles, num_steps=steps, num_chains=chains,
        weighted=not unweighted,
    )  # fmt: skip
    with new_folder(output or Path(f"smcdiff-{problem}")) as folder:
        start = time.perf_counter()
        posterior = smc.run(key_run, distribution, operator, noise, y=y)
        seconds = time.perf_counter() - start
        posterior.save(folder / "posterior.nc")
        _draw(problem, operator, posterior, y, clean, folder / "solution.png")
    _summarise(posterior, clean, seconds, folder)


def _model(prior, operator, noise, y):
    """The likelihood, as any NumPyro model; prior and operator are pytrees, so arguments."""
    import numpyro
    import numpyro.distributions as dist

    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(operator(x), noise).to_event(), obs=y)


def _proposal(name: str):
    """A proposal with its defaults, by its class's name in lower case with hyphens."""
    from smcdiff import proposals

    if name == "auto":
        return None
    known = {_hyphened(sampler.__name__): sampler for sampler in proposals.SAMPLERS}
    if name not in known:
        raise InputError(f"--proposal {name}: choose from auto, {', '.join(known)}")
    return known[name]()


def _hyphened(word: str) -> str:
    """MomentMatched is moment-matched, and DPS dps."""
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "-", word).lower()


def _read(file: Path, shape, value_range, margin: float = 1e-3):
    from smcdiff.cli.images import fit_shape, read_image

    return fit_shape(read_image(file, value_range, margin), shape, file)


def _observation(file: Path, problem: Problem, operator, value_range, margin: float):
    """y, from an image of what was observed."""
    import jax.numpy as jnp

    if problem is Problem.FOURIER:
        raise InputError(
            f"{file}: fourier takes a clean image, with --simulate; solve measured coefficients in"
            " Python with smcdiff.operators.MaskedFourier"
        )
    if problem is not Problem.INPAINT:
        return _read(file, operator.out_shape, value_range, margin)
    return operator(jnp.asarray(_read(file, operator.in_shape, value_range, margin)))


def _bundled(prior: str, digit: int):
    import numpy as np

    from smcdiff.zoo import load_examples

    images, labels = load_examples(prior)
    return images[np.flatnonzero(labels == digit)[0]]


def _draw(problem: Problem, operator, posterior, y, clean, file: Path) -> None:
    import numpy as np

    from smcdiff.plots import plot_solution

    seen = np.asarray(y)
    if problem is Problem.INPAINT:
        seen = np.full(operator.in_shape, np.nan, np.float32)
        seen.flat[np.asarray(operator.indices)] = y
    if problem is Problem.FOURIER:  # shown as the image of the coefficients that are there
        seen = np.asarray(operator.adjoint(y))
    title = f"{problem}: log evidence {_evidence(posterior)}"
    plot_solution(posterior, seen, clean, title=title).savefig(file, dpi=130)


def _evidence(posterior) -> str:
    if not posterior.weighted:
        return "none, weights off"
    from smcdiff.posterior import log_mean_evidence

    spread = ""
    if posterior.log_evidence.size > 1:
        spread = f" (spread over chains {posterior.log_evidence.std(ddof=1):.2f})"
    return f"{log_mean_evidence(posterior.log_evidence):.2f}{spread}"


def _summarise(posterior, clean, seconds: float, folder: Path) -> None:
    """The table at the end, and what is wrong, if anything is."""
    from rich.console import Console
    from rich.table import Table

    from smcdiff.diagnostics.degeneracy import diagnose
    from smcdiff.diagnostics.metrics import psnr

    rows: dict[str, Any] = {
        "proposal": f"{posterior.attrs['proposal']}: {posterior.attrs['proposal_reason']}",
        "log evidence": _evidence(posterior),
        "ESS at the end": ", ".join(f"{v:.1f}" for v in posterior.ess[:, -1])
        + f" of {posterior.log_weights.shape[1]}",
    }
    if clean is not None:
        rows["PSNR of the mean"] = f"{float(psnr(posterior.mean()['x'], clean)):.1f} dB"
    rows["seconds"] = f"{seconds:.0f}"
    rows["written"] = f"{folder / 'posterior.nc'}, {folder / 'solution.png'}"
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, str(value))
    console = Console()
    console.print(table)
    for finding in diagnose(posterior).findings:
        console.print(f"[yellow]note:[/yellow] {finding}", soft_wrap=True)
