"""Pictures: sizes and grey levels of the grid, panels of the summary."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from PIL import Image

from smcdiff import SMC, InputError, priors
from smcdiff.results import plots


def solved(shape):
    size = int(np.prod(shape))
    flat = priors.Gaussian(jnp.zeros(size), 1.0)
    prior = priors.DiffusionPrior(
        lambda x, t: flat.denoise(x.ravel(), t).reshape(shape), flat.schedule, shape
    )

    def model(y):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, 1.0).to_event(), obs=y)

    smc = SMC(model, num_particles=8, num_steps=3, num_chains=2, progress_bar=False)
    return smc.run(jax.random.key(0), y=jnp.zeros(shape))


def test_grid_places_images_row_by_row(tmp_path):
    images = np.stack([np.full((2, 3, 1), value) for value in (-1.0, 0.0, 1.5)])
    plots.save_grid(images, tmp_path / "grid.png", columns=2, scale=1)
    pixels = np.asarray(Image.open(tmp_path / "grid.png"))
    assert pixels.shape == (4, 6)
    assert [pixels[0, 0], pixels[0, 3], pixels[2, 0], pixels[2, 3]] == [0, 128, 255, 0]


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (4, 4, 3)])
def test_summary_has_all_panels(shape, tmp_path):
    posterior = solved(shape)
    observation = np.full(shape, np.nan)
    figure = plots.plot_solution(posterior, observation, np.zeros(shape), title="a title")
    titles = [axis.get_title() for axis in figure.axes]
    for wanted in ("observation", "truth", "posterior mean", "standard deviation", "draw 6"):
        assert wanted in titles
    assert any("ESS" in title for title in titles)
    figure.savefig(tmp_path / "solution.png")


def test_events_that_are_no_images():
    with pytest.raises(InputError, match="not images"):
        plots.plot_solution(solved((3,)), np.zeros(3))
