"""``smcdiff solve``: an imaging problem, from the user's files to a posterior."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from smcdiff.cli.problems import Degradation, Measurement
from smcdiff.errors import InputError, did_you_mean

_LEAST_NOISE = 1e-6
"""Below this float32 does not tell an observation in [-1, 1] from its neighbours."""

_FILES, _HIDING, _BLUR = "The images", "Parts: inpaint and fourier", "Blur: deblur"
_OTHER, _SAMPLER, _RESULT = "Other operators", "The sampler", "The result"


def solve(
    problem: Annotated[
        str,
        typer.Argument(
            help="inpaint, deblur, super-resolve, colourise, fourier, separable or dense; or"
            " several, joined by +, of which the first is applied first: deblur+super-resolve.",
            show_default=False,
        ),
    ],
    image: Annotated[
        Path | None,
        typer.Argument(
            help="The observation; with --simulate a clean image, which is degraded first. Left"
            " out: a real digit that no training has seen, degraded."
        ),
    ] = None,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate",
            help="IMAGE is the truth: degrade it, then solve.",
            rich_help_panel=_FILES,
        ),
    ] = False,
    truth: Annotated[
        Path | None, typer.Option(help="The true image, to compare with.", rich_help_panel=_FILES)
    ] = None,
    digit: Annotated[
        int,
        typer.Option(
            help="Where IMAGE is left out: which digit, 0 to 9.",
            min=0,
            max=9,
            rich_help_panel=_FILES,
        ),
    ] = 3,  # fmt: skip
    value_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--range",
            metavar="LOW HIGH",
            help="Black and white in the files; else 0 255 for 8 bit, -1 1 for floats.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    noise: Annotated[
        float,
        typer.Option(
            help="Standard deviation of the observation's noise; black is -1, white 1.",
            rich_help_panel=_FILES,
        ),
    ] = 0.1,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="PNG or .npy; white (1) is observed, black (0) hidden. (h, w) masks all channels"
            " alike, (h, w, c) and a picture in colours each on its own. fourier: which"
            " coefficients, in the order of numpy.fft.fft2, frequency zero at the top left.",
            rich_help_panel=_HIDING,
        ),
    ] = None,
    hide: Annotated[
        str | None,
        typer.Option(
            help="left, right (the default), top, bottom, centre or random.",
            rich_help_panel=_HIDING,
        ),
    ] = None,
    box: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(
            metavar="ROW COLUMN HEIGHT WIDTH",
            help="Hide a box: its first row, first column, height and width, in pixels from 0.",
            rich_help_panel=_HIDING,
        ),
    ] = None,
    hide_channels: Annotated[
        str | None,
        typer.Option(
            help="Hide whole channels, by number from 0: 0,2. Alone, or besides one of the above.",
            rich_help_panel=_HIDING,
        ),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(
            help="--hide random, and fourier: the share that is observed, in (0, 1]; else 0.3.",
            rich_help_panel=_HIDING,
        ),
    ] = None,
    width: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation of a Gaussian, in pixels; else 2.", rich_help_panel=_BLUR
        ),
    ] = None,
    motion: Annotated[
        float | None,
        typer.Option(
            help="Motion blur of this length in pixels, instead of the Gaussian.",
            rich_help_panel=_BLUR,
        ),
    ] = None,
    angle: Annotated[
        float | None,
        typer.Option(
            help="--motion: its direction, in degrees from the horizontal; else 45.",
            rich_help_panel=_BLUR,
        ),
    ] = None,
    kernel: Annotated[
        Path | None,
        typer.Option(
            help="Any 2-D filter, of odd height and width: an .npy array, taken as it is, or a"
            " grey PNG, divided by its sum.",
            rich_help_panel=_BLUR,
        ),
    ] = None,
    wrap: Annotated[
        bool | None,
        typer.Option(
            "--wrap",
            help="--kernel: wrap around the borders; else outside the image is mid-grey.",
            rich_help_panel=_BLUR,
        ),
    ] = None,
    factor: Annotated[
        int | None,
        typer.Option(
            help="super-resolve: how many pixels become one, each way; else 4.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    bicubic: Annotated[
        bool | None,
        typer.Option(
            "--bicubic",
            help="super-resolve: bicubic instead of block means.",
            rich_help_panel=_OTHER,
        ),
    ] = None,  # fmt: skip
    mix: Annotated[
        Path | None,
        typer.Option(
            help="colourise: an .npy matrix (channels seen, channels); else their mean is seen.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(
            help="separable: an .npy matrix (any, height), applied to each column.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    columns: Annotated[
        Path | None,
        typer.Option(
            help="separable: an .npy matrix (any, width), applied to each row.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    matrix: Annotated[
        Path | None,
        typer.Option(
            help="dense: an .npy matrix (observations, pixels), applied to the image's values row"
            " by row, channels last.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    prior: Annotated[
        str,
        typer.Option(
            help="Name of a shipped prior, or a prior's folder.", rich_help_panel=_SAMPLER
        ),
    ] = "mnist",
    proposal: Annotated[
        str,
        typer.Option(
            help="auto chooses from the problem's structure and says why; or a sampler's name:"
            " bootstrap, replacement, smcdiff, repaint, dps, pigdm, twisted, moment-matched,"
            " krylov-moment-matched, lanczos-moment-matched, mcgdiff, fps, ddrm, daps or"
            " rejuvenated.",
            rich_help_panel=_SAMPLER,
        ),
    ] = "auto",
    unweighted: Annotated[
        bool,
        typer.Option(
            "--unweighted",
            help="Switch the weights off: the plain heuristic.",
            rich_help_panel=_SAMPLER,
        ),
    ] = False,
    particles: Annotated[
        int,
        typer.Option("--particles", "-n", help="Particles a chain.", rich_help_panel=_SAMPLER),
    ] = 64,
    steps: Annotated[
        int, typer.Option(help="Reverse diffusion steps.", rich_help_panel=_SAMPLER)
    ] = 100,
    chains: Annotated[
        int,
        typer.Option(
            help="Independent runs; their spread is the Monte-Carlo error.",
            rich_help_panel=_SAMPLER,
        ),
    ] = 2,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Particles in the network at once, over all chains; else all. Fewer need less"
            " memory.",
            rich_help_panel=_SAMPLER,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(help="Of the random numbers.", min=0, max=2**32 - 1, rich_help_panel=_SAMPLER),
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="New folder for posterior.nc and solution.png; else smcdiff-PROBLEM.",
            rich_help_panel=_RESULT,
        ),
    ] = None,
) -> None:
    """Solve an imaging problem: a weighted posterior, its evidence, and a picture.

    What is seen of the image: inpaint, all but a hidden part; deblur, it blurred; super-resolve,
    means over blocks; colourise, the mean of its channels; fourier, some Fourier coefficients (MRI,
    interferometry); separable, a matrix times its columns and another times its rows; dense, a
    matrix times all of its values. Gaussian noise is added to that.

    IMAGE is a PNG or an .npy array, (h, w) or (h, w, c). inpaint takes it in the size of the
    prior's images (28 x 28 for mnist); what is hidden may hold anything. The others take
    what their operator returns: super-resolve a smaller image, dense an .npy vector, fourier a
    complex .npy array of the image's size, as numpy.fft.fft2 with norm="ortho" makes it. Nothing is
    resized; colours become grey where the prior is grey. Where filters or matrices of your own
    do not sum to one, the observation has no black and white: give the numbers, in .npy, that they
    make of an image from -1 to 1.

    Writes posterior.nc (open it with smcdiff.Posterior.load or xarray.open_datatree) and
    solution.png into a new folder, and prints a summary. Bad input ends with one line and exit code
    2 before the run starts, Ctrl-C with exit code 130 and nothing written.

    Examples: `smcdiff solve inpaint` (a shipped digit, its right half hidden);
    `smcdiff solve inpaint photo.png --mask mask.png --prior my-prior --noise 0.05`;
    `smcdiff solve deblur+super-resolve clean.png --simulate --width 1 --factor 2`;
    `smcdiff solve dense y.npy --matrix A.npy`.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from smcdiff import SMC
    from smcdiff.cli.interrupt import interruptible
    from smcdiff.cli.output import new_folder
    from smcdiff.cli.summary import draw, summarise
    from smcdiff.results import plots
    from smcdiff.store.zoo import load_prior

    if not (noise >= _LEAST_NOISE and np.isfinite(noise)):
        raise InputError(f"--noise is {noise:g}; it must be positive, at least {_LEAST_NOISE:g}")
    if truth is not None and (image is None or simulate):
        raise InputError("--truth goes with an IMAGE that is an observation, not with --simulate")
    if simulate and image is None:
        raise InputError("--simulate needs a clean IMAGE; name one, or leave --simulate out")
    options = Degradation(
        mask, hide, box, hide_channels, keep, width, kernel, wrap, motion, angle, factor, bicubic,
        mix, rows, columns, matrix,
    )  # fmt: skip
    sampler = _proposal(proposal)
    distribution = load_prior(prior)
    shape = distribution.event_shape
    key_noise, key_mask, key_run = jax.random.split(jax.random.key(seed), 3)
    measured = Measurement.of(problem, options, shape, key_mask)
    if noise > 2 and not measured.numbers:
        raise InputError(
            f"--noise is {noise:g}, more than white is from black (2): nothing is left to see; give"
            f" it for images from -1 to 1, so {noise / 127.5:.3g} for {noise:g} of 255 grey levels"
        )
    if image is not None and not simulate:
        y = measured.read(image, value_range, noise)
        clean = None if truth is None else _read(truth, shape, value_range)
    else:
        clean = _bundled(prior, shape, digit) if image is None else _read(image, shape, value_range)
        y = measured.operator(jnp.asarray(clean))
        y = np.asarray(y + noise * jax.random.normal(key_noise, y.shape))
    smc = SMC(
        _model, sampler, num_particles=particles, num_steps=steps, num_chains=chains,
        weighted=not unweighted, batch_size=batch_size,
    )  # fmt: skip
    with new_folder(output or Path(f"smcdiff-{problem}")) as folder:
        start = time.perf_counter()
        posterior = interruptible(
            lambda: smc.run(key_run, distribution, measured.operator, noise, y=jnp.asarray(y))
        )
        seconds = time.perf_counter() - start
        files = [posterior.save(folder / "posterior.nc")]
        if plots.is_image(shape):
            files.append(draw(measured, posterior, y, clean, folder / "solution.png"))
    summarise(posterior, clean, seconds, files)


def _model(prior, operator, noise, y):
    """The likelihood, as any NumPyro model; prior and operator are pytrees, so arguments."""
    import numpyro
    import numpyro.distributions as dist

    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(operator(x), noise).to_event(), obs=y)


def _proposal(name: str):
    """A proposal with its defaults, by its class's name; case and hyphens do not matter."""
    from smcdiff import proposals

    if name == "auto":
        return None
    known = {_hyphened(sampler.__name__): sampler for sampler in proposals.SAMPLERS}
    for spelling, sampler in known.items():
        if name.lower().replace("-", "") == spelling.replace("-", ""):
            return sampler()
    if name.lower() in {_hyphened(sampler.__name__) for sampler in proposals.CONDITIONAL_SAMPLERS}:
        raise InputError(
            f"--proposal {name}: it needs a learned conditional model, so it runs from Python only:"
            " proposals of smcdiff.SMC"
        )
    raise InputError(f"--proposal {name}: {did_you_mean(name, ['auto', *known])}")


def _hyphened(word: str) -> str:
    """MomentMatched is moment-matched, RePaint repaint, and DPS dps."""
    return re.sub(r"(?<=[a-z]{3})(?=[A-Z][a-z])", "-", word).lower()


def _read(file: Path, shape, value_range):
    from smcdiff.cli.images import fit_shape, read_image

    return fit_shape(read_image(file, value_range, 1e-3), shape, file)


def _bundled(prior: str, shape: tuple[int, ...], digit: int):
    import numpy as np

    from smcdiff.store.zoo import load_examples

    images, labels = load_examples(prior)
    if images.shape[1:] != shape:
        raise InputError(
            f"the examples of {prior} have shape {images.shape[1:]}, its prior {shape}; give an"
            " IMAGE"
        )
    found = np.flatnonzero(labels == digit)
    if not len(found):
        known = sorted({int(label) for label in labels})
        raise InputError(f"--digit {digit}: the examples of {prior} are {known}; choose from them")
    return images[found[0]]
