"""Pictures: sizes and grey levels of the grid, panels of the summary."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from smcdiff import InputError
from smcdiff.base._pixels import read_picture
from smcdiff.results import plots
from tests.results.records import record


def solved(shape):
    """Noise around a diagonal line."""
    line = np.eye(*shape[:2]).reshape(*shape[:2], *[1] * (len(shape) - 2))
    noise = np.random.default_rng(0).normal(0.0, 0.2, (2, 100, *shape))
    return record(samples={"x": (np.broadcast_to(line, shape) + noise).astype(np.float32)})


def test_grid_places_images_row_by_row(tmp_path):
    images = np.stack([np.full((2, 3, 1), value) for value in (-1.0, 0.0, 1.5)])
    plots.save_grid(images, tmp_path / "grid.png", columns=2, scale=1)
    pixels = np.asarray(Image.open(tmp_path / "grid.png"))
    assert pixels.shape == (4, 6)
    assert [pixels[0, 0], pixels[0, 3], pixels[2, 0], pixels[2, 3]] == [0, 128, 255, 0]
    assert len(list(tmp_path.iterdir())) == 1


def test_grid_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="No such file or directory"):
        plots.save_grid(np.zeros((1, 2, 2, 1)), tmp_path / "missing" / "grid.png")


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (4, 4, 3)])
def test_summary_has_all_panels(shape, tmp_path):
    observation = np.full(shape, np.nan)
    figure = plots.plot_solution(solved(shape), observation, np.zeros(shape), title="a title")
    titles = [axis.get_title() for axis in figure.axes]
    for wanted in ("observation", "truth", "posterior mean", "standard deviation", "draw 6"):
        assert wanted in titles
    assert "ESS / particles, one line per chain" in titles
    figure.savefig(tmp_path / "solution.png")


def test_many_chains_are_shown_as_one_band():
    figure = Figure()
    axis = figure.subplots()
    ess = np.tile(np.linspace(1.0, 4.0, 21)[:, None], (1, 4))
    plots.plot_ess(axis, record(np.zeros((21, 4)), ess=ess))
    (line,) = axis.lines
    np.testing.assert_allclose(line.get_ydata(), 2.5 / 4)
    (band,) = axis.collections
    heights = band.get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([heights.min(), heights.max()], [1.15 / 4, 3.85 / 4])
    assert axis.get_title() == "ESS / particles: mean, 90 % of 21 chains"


def test_events_that_are_no_images():
    with pytest.raises(InputError, match="not images"):
        plots.plot_solution(record(), np.zeros((2, 2)))


def test_columns_of_captions(tmp_path):
    """Row by row below the texts, which are broken into lines of the columns' width."""
    images = np.zeros((4, 8, 8, 3)) + np.array([-1.0, -0.5, 0.5, 1.0])[:, None, None, None]
    captions = ["a cat", "two red circles above a blue square"]
    plots.save_captioned(images, captions, tmp_path / "a.png", scale=4)
    pixels = read_picture(tmp_path / "a.png")
    top = pixels.shape[0] - 64
    assert pixels.shape[1:] == (64, 3) and top > 6 + 14 * len(captions[1].split()) - 14
    assert [pixels[top + y, x, 0] for y in (5, 40) for x in (5, 40)] == [0, 64, 191, 255]
    assert pixels[:top].min() < 128 < pixels[:top].max()
