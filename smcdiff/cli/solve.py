"""``smcdiff solve``: an imaging problem, from the user's files to a posterior."""

from __future__ import annotations

import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from smcdiff.base._progress import ProgressBar
from smcdiff.cli import options
from smcdiff.cli.captioned import check_caption, naming, require_captions
from smcdiff.cli.catalogue import Observations, read_shard, solve_catalogue
from smcdiff.cli.interrupt import interruptible
from smcdiff.cli.observation import Source
from smcdiff.cli.output import new_folder
from smcdiff.cli.problems import Degradation, Measurement
from smcdiff.cli.sampler import Sampler, named_proposal
from smcdiff.cli.summary import draw, summarise
from smcdiff.errors import InputError
from smcdiff.priors import DiffusionPrior
from smcdiff.results import plots
from smcdiff.store.prior import load_prior


def solve(
    problem: options.Problem,
    image: options.Image = None,
    simulate: options.Simulate = False,
    truth: options.Truth = None,
    digit: options.Digit = 3,
    value_range: options.Range = None,
    noise: options.Noise = 0.1,
    mask: options.Mask = None,
    hide: options.Hide = None,
    box: options.Box = None,
    hide_channels: options.HideChannels = None,
    keep: options.Keep = None,
    width: options.Width = None,
    motion: options.Motion = None,
    angle: options.Angle = None,
    kernel: options.Kernel = None,
    wrap: options.Wrap = None,
    factor: options.Factor = None,
    bicubic: options.Bicubic = None,
    mix: options.Mix = None,
    rows: options.Rows = None,
    columns: options.Columns = None,
    matrix: options.Matrix = None,
    prior: options.Prior = "mnist",
    caption: options.Caption = None,
    proposal: options.Proposal = "auto",
    unweighted: options.Unweighted = False,
    particles: options.Particles = None,
    steps: options.Steps = 60,
    chains: options.Chains = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    output: options.Output = None,
    checkpoint: options.Checkpoint = None,
    catalogue: options.Catalogue = False,
    shard: options.Shard = None,
    items_per_batch: options.ItemsPerBatch = None,
) -> None:
    """Solve an imaging problem: a weighted posterior, its evidence, and a picture.

    What is seen of the image: inpaint, all but a hidden part; deblur, it blurred; super-resolve,
    means over blocks; colourise, the mean of its channels; fourier, some Fourier coefficients (MRI,
    interferometry); separable, a matrix times its columns and another times its rows; dense, a
    matrix times all of its values. Gaussian noise is added to that.

    IMAGE is a PNG or an .npy array, (h, w) or (h, w, c), channels last. inpaint takes it in the
    size of the prior's images (28 x 28 for mnist); what is hidden may hold anything. The others
    take what their operator returns: super-resolve a smaller image, dense an .npy vector, fourier a
    complex .npy array of the image's size, as numpy.fft.fft2 with norm="ortho" makes it. Nothing is
    resized; colours become grey where the prior is grey. Four channels are taken for red, green,
    blue and an alpha where the prior has one or three; the alpha must be opaque and is dropped.
    Where filters or matrices of your own do not sum to one, the observation has no black and white:
    give the numbers, in .npy, that they make of an image from -1 to 1.

    A digit takes about two minutes on two cores with the defaults.

    Writes posterior.nc (open it with smcdiff.Posterior.load or xarray.open_datatree) and
    solution.png into a new folder, and prints a summary. Bad input ends with one line and exit code
    2 before the run starts, Ctrl-C with exit code 130 and nothing written.

    A catalogue is many observations of one kind in one .npy array, with --catalogue: each item's
    posterior is written as a file, item-000123.nc say, and the same command goes on where it was
    stopped. The jobs of an array each take a share of it with --shard, into the same folder.

    Examples: `smcdiff solve inpaint` (a shipped digit, its right half hidden);
    `smcdiff solve inpaint photo.png --mask mask.png --prior my-prior --noise 0.05`;
    `smcdiff solve deblur+super-resolve clean.png --simulate --width 1 --factor 2`;
    `smcdiff solve dense y.npy --matrix A.npy`;
    `smcdiff solve inpaint half.png --prior my-shapes --caption "two red circles"`;
    `smcdiff solve deblur stamps.npy --catalogue --output stamps --shard 3/16`.
    """
    degradation = Degradation(
        mask, hide, box, hide_channels, keep, width, kernel, wrap, motion, angle, factor, bicubic,
        mix, rows, columns, matrix,
    )  # fmt: skip
    source = Source(image, simulate, truth, digit, value_range, noise)
    source.check()
    folder = output or Path(f"smcdiff-{problem}")
    if catalogue:
        _check_catalogue(source, checkpoint)
    else:
        _check_one(shard, items_per_batch, checkpoint, folder)
    share = None if shard is None else read_shard(shard)
    sampler = Sampler(named_proposal(proposal), unweighted, particles, steps, chains, batch_size)
    sampler.check()
    degradation.check(problem)
    distribution = _prior(prior, caption)
    key_noise, key_mask, key_run = jax.random.split(jax.random.key(seed), 3)
    measured = Measurement.of(problem, degradation, distribution.event_shape, key_mask)
    source.check_noise_of(measured)
    arguments = (distribution, measured.operator, noise)
    if catalogue:
        items = Observations(measured, source)
        sampler = sampler.sized(*arguments, jnp.asarray(items[0]))
        solve_catalogue(sampler, key_run, arguments, items, folder, share, items_per_batch)
        return
    y, clean = source.observe(measured, prior, key_noise)
    sampler = sampler.sized(*arguments, jnp.asarray(y))
    resume = {} if checkpoint is None else {"checkpoint": checkpoint}

    def run(progress):
        return sampler.smc(progress).run(key_run, *arguments, y=jnp.asarray(y), **resume)

    with new_folder(folder):
        start = time.perf_counter()
        posterior = interruptible(run, ProgressBar())
        seconds = time.perf_counter() - start
        files = [posterior.save(folder / "posterior.nc")]
        if plots.is_image(distribution.event_shape):
            files.append(draw(measured, posterior, y, clean, folder / "solution.png"))
    summarise(posterior, clean, seconds, files, {} if caption is None else {"caption": caption})


def _prior(name: str, caption: str | None) -> DiffusionPrior:
    """The prior of the images, given what they show if that is said."""
    if caption is not None:
        check_caption("--caption", caption)
    prior = load_prior(name)
    if caption is None:
        return prior
    require_captions(prior, name)
    with naming(f"--prior {name}"):
        return prior.given(caption)


def _check_one(
    shard: str | None, items_per_batch: int | None, checkpoint: Path | None, folder: Path
) -> None:
    """Raises ``InputError`` where one image was given options that do not go with it."""
    for name, value in (("--shard", shard), ("--items-per-batch", items_per_batch)):
        if value is not None:
            raise InputError(f"{name} goes with --catalogue; add it, or leave {name} out")
    if checkpoint is not None:
        inner, outer = (Path(os.path.realpath(path)) for path in (checkpoint, folder))
        if inner.is_relative_to(outer):
            raise InputError(
                f"--checkpoint {checkpoint}: inside the folder of the result; choose another"
            )


def _check_catalogue(source: Source, checkpoint: Path | None) -> None:
    """Raises ``InputError`` where a catalogue was given options that do not go with it."""
    if source.image is None:
        raise InputError("--catalogue needs IMAGE, an .npy array of observations; name one")
    for name, given in (
        ("--simulate", source.simulate),
        ("--truth", source.truth is not None),
        ("--checkpoint", checkpoint is not None),
    ):
        if given:
            raise InputError(
                f"{name} goes with one image, not with --catalogue, whose items are observations"
                " and whose finished ones are kept; leave it out"
            )
