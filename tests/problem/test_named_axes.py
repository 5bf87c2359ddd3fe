"""The names of axes, from plates and sites."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from smcdiff import priors
from smcdiff.problem import read

PRIOR = priors.Gaussian(jnp.zeros((2, 3)), 1.0)


def axes(model):
    return dict(read(model, (), {}).named_axes)


def observe(x, **options):
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(), obs=jnp.zeros((2, 3)), **options)


def test_a_model_without_plates_has_no_names():
    def model():
        observe(numpyro.sample("x", PRIOR))

    assert axes(model) == {}


def test_plates_name_the_axes_of_the_batch_and_the_site_those_of_its_event():
    def model():
        x = numpyro.sample("x", PRIOR, infer={"event_dims": ["row"]})
        with numpyro.plate("column", 3, dim=-1):
            gain = numpyro.sample("gain", dist.Normal(1.0, 0.1))
            numpyro.deterministic("double", 2.0 * gain)
            with numpyro.plate("line", 2, dim=-2):
                numpyro.sample("y", dist.Normal(x * gain[None], 1.0), obs=jnp.zeros((2, 3)))

    assert axes(model) == {
        "x": ("row", "x_dim_1"),
        "gain": ("column",),
        "double": ("column",),
        "y": ("line", "column"),
    }


def test_an_axis_without_a_plate_keeps_its_place():
    """A plate at -2 alone: the batch is (2, 1), and NumPyro's bridge names the first axis."""

    def model():
        x = numpyro.sample("x", PRIOR)
        with numpyro.plate("line", 2, dim=-2):
            offset = numpyro.sample("offset", dist.Normal(0.0, 1.0))
        observe(x + offset)

    assert axes(model) == {"offset": ("line", "offset_dim_1")}


def test_names_that_the_export_has_are_left_out():
    def model():
        x = numpyro.sample("x", PRIOR, infer={"event_dims": ["draw", "x_dim_0"]})
        with numpyro.plate("a/b", 3):
            gain = numpyro.sample("gain", dist.Normal(1.0, 0.1))
        with numpyro.plate("step", 3):
            offset = numpyro.sample("offset", dist.Normal(0.0, 0.1))
        observe(x * gain[None] + offset[None])

    assert axes(model) == {}
