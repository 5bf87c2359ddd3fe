"""Pictures: a grid of images, and the summary of an inverse problem's posterior.

Images are (h, w), (h, w, 1) or (h, w, 3) with values in [-1, 1]; values outside are clipped for
display only. Figures are made without pyplot, so that no global state changes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float

from smcdiff.base._files import write_whole
from smcdiff.base._pixels import to_bytes
from smcdiff.errors import InputError
from smcdiff.results._particles import SHOWN_CHAINS, WeightedParticles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_DRAWS = 6
"""Draws shown by `plot_solution`."""


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether events of this shape can be shown as images."""
    return len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3))


def save_grid(
    images: Float[np.ndarray, "n h w c"], path: str | Path, *, columns: int = 16, scale: int = 2
) -> None:
    """Writes images side by side as one PNG.

    Args:
        images: (n, h, w, c) in [-1, 1]; c is 1 or 3.
        path: file to write, as PNG whatever its name.
        columns: images per row; the last row is padded with black.
        scale: screen pixels per pixel of the images.

    Raises:
        InputError: the file cannot be written.
    """
    picture = _sheet(np.asarray(images), columns)
    _write(picture.resize((picture.width * scale, picture.height * scale), 0), path)


def _sheet(images: np.ndarray, columns: int) -> Any:
    """Images side by side, as Pillow has pictures."""
    from PIL import Image

    count, height, width, channels = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * columns, height, width, channels), -1.0)
    sheet[:count] = images
    sheet = sheet.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    pixels = to_bytes(sheet.reshape(rows * height, columns * width, channels))
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def _write(picture: Any, path: str | Path) -> None:
    content = BytesIO()
    picture.save(content, "png")
    write_whole(Path(path), content.getbuffer())


def save_captioned(
    images: Float[np.ndarray, "n h w c"],
    captions: Sequence[str],
    path: str | Path,
    *,
    scale: int = 4,
) -> None:
    """Writes a column of images for each caption, under its text, as one PNG.

    Args:
        images: (n, h, w, c) in [-1, 1], row by row: the first of each caption, then the second.
        captions: of the columns.
        path: file to write, as PNG whatever its name.
        scale: screen pixels per pixel of the images.

    Raises:
        InputError: the file cannot be written.
    """
    from PIL import Image, ImageDraw

    width = np.shape(images)[2]
    grid = _sheet(np.asarray(images), len(captions))
    grid = grid.resize((grid.width * scale, grid.height * scale), 0)
    letters = max(1, width * scale // 7)  # of the built-in font, and a space between columns
    texts = ["\n".join(textwrap.wrap(caption, letters)) for caption in captions]
    top = 6 + 14 * max(text.count("\n") + 1 for text in texts)
    picture = Image.new("RGB", (grid.width, grid.height + top), "white")
    picture.paste(grid, (0, top))
    draw = ImageDraw.Draw(picture)
    for column, text in enumerate(texts):
        draw.text((column * width * scale + 2, 2), text, fill="black")
    _write(picture, path)


def show_image(axis: Axes, image: np.ndarray, title: str = "", **options: Any) -> Any:
    """Draws one image without ticks; NaN pixels come out in a plain colour.

    Args:
        axis: where to draw.
        image: (h, w), (h, w, 1) or (h, w, 3).
        title: above it.
        **options: of ``imshow``; by default grey levels from -1 to 1.

    Returns:
        Matplotlib's image.
    """
    import matplotlib

    image = np.asarray(image)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim == 3:
        drawn = axis.imshow(to_bytes(image), interpolation="nearest")
    else:
        colours = matplotlib.colormaps[options.pop("cmap", "gray")].with_extremes(bad="#4c72b0")
        options = {"vmin": -1, "vmax": 1, "interpolation": "nearest", **options}
        drawn = axis.imshow(np.ma.masked_invalid(image), cmap=colours, **options)
    axis.set_title(title, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])
    return drawn


def plot_ess(axis: Axes, posterior: WeightedParticles) -> None:
    """The ESS over the reverse steps, as a fraction of the particles: of each chain, or of many."""
    chains, particles = posterior.log_weights.shape
    share, colour = posterior.ess / particles, "#4c72b0"
    if chains <= SHOWN_CHAINS:
        title = "ESS / particles, one line per chain"
        axis.plot(share.T, color=colour, alpha=0.7, linewidth=1)
    else:
        title = f"ESS / particles: mean, 90 % of {chains} chains"
        axis.plot(share.mean(0), color=colour, linewidth=1)
        low, high = np.quantile(share, (0.05, 0.95), axis=0)
        axis.fill_between(np.arange(len(low)), low, high, color=colour, alpha=0.25, linewidth=0)
    axis.set_ylim(0, 1.05)
    axis.set_xlabel("reverse step", fontsize=8)
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=7)


def plot_solution(
    posterior: WeightedParticles,
    observation: Float[np.ndarray, "h w *c"],
    truth: Float[np.ndarray, "height width *channels"] | None = None,
    *,
    site: str | None = None,
    title: str = "",
) -> Figure:
    """One picture of a solved inverse problem.

    The observation, the truth where it is known, the posterior mean, the pixelwise standard
    deviation, six draws and the ESS over the steps.

    Args:
        posterior: the result of a run.
        observation: as an image; NaN where nothing was observed.
        truth: the true image, where it is known.
        site: which site; None takes the first, the diffusion site.
        title: above everything.

    Returns:
        The figure; ``figure.savefig(path)`` writes it.

    Raises:
        InputError: the site's events are not images.
    """
    from matplotlib.figure import Figure

    site = next(iter(posterior.samples)) if site is None else site
    shape = posterior.samples[site].shape[2:]
    if not is_image(shape):
        raise InputError(f"site '{site}': events of shape {shape} are not images")
    draws = np.asarray(posterior.resample(jax.random.key(0), NUM_DRAWS)[site])
    spread = posterior.std()[site]
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    rows = figure.add_gridspec(2, 1)
    above, below = figure.add_subfigure(rows[0]), figure.add_subfigure(rows[1])
    seen, known, mean, deviation, filtered = above.subplots(1, 5, width_ratios=[1, 1, 1, 1.2, 1.8])
    show_image(seen, observation, "observation")
    if truth is None:
        known.axis("off")
    else:
        show_image(known, truth, "truth")
    show_image(mean, posterior.mean()[site], "posterior mean")
    if spread.ndim == 3:
        spread = spread.mean(axis=-1)
    drawn = show_image(deviation, spread, "standard deviation", cmap="magma", vmin=0, vmax=None)
    above.colorbar(drawn, ax=deviation, shrink=0.8).ax.tick_params(labelsize=7)
    plot_ess(filtered, posterior)
    for axis, (index, draw) in zip(below.subplots(1, NUM_DRAWS), enumerate(draws, 1), strict=True):
        show_image(axis, draw, f"draw {index}")
    if title:
        figure.suptitle(title, fontsize=10)
    return figure
