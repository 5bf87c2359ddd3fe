"""The unknown parameters of a model: its continuous latent sites beside the diffusion site.

They are kept as NumPyro's own samplers keep them, in unconstrained space: a site of support S has
the value ``biject_to(S)(u)``, and its prior density in u has the factor of the Jacobian. The
support may depend on other sites.
"""

from __future__ import annotations

import math
from typing import cast

import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import biject_to
from numpyro.distributions.transforms import Transform

from smcdiff.base.module import Module, static
from smcdiff.problem import _sites as sites
from smcdiff.problem._sites import Site


class Parameters(Module):
    """One value of all unknown parameters, unconstrained.

    Attributes:
        values: (p,) of all sites, one after the other.
        shapes: name and unconstrained shape of each site, in the order of the model.
    """

    values: Float[Array, " p"]
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = static()

    @classmethod
    def of(cls, found: dict[str, Site], names: tuple[str, ...]) -> Parameters:
        """The values that sites have in a trace.

        Args:
            found: the sites of a run of the model.
            names: which of them are parameters.
        """
        parts = {name: _unconstrained(found[name]) for name in names}
        values = jnp.concatenate([jnp.ravel(part) for part in parts.values()])
        return cls(values, tuple((name, jnp.shape(part)) for name, part in parts.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sites."""
        return tuple(name for name, _ in self.shapes)

    @property
    def by_site(self) -> dict[str, Array]:
        """The unconstrained value of each site."""
        parts, start = {}, 0
        for name, shape in self.shapes:
            end = start + math.prod(shape)
            parts[name] = self.values[start:end].reshape(shape)
            start = end
        return parts

    def log_prior(self, found: dict[str, Site]) -> Float[Array, ""]:
        """Log prior density of the values, in unconstrained space.

        Args:
            found: the sites of a run of the model at these values.
        """
        total = jnp.zeros(())
        for name, part in self.by_site.items():
            site = found[name]
            jacobian = _transform(site).log_abs_det_jacobian(part, site["value"])
            total += jnp.sum(sites.log_prob(site)) + jnp.sum(jacobian)
        return total


def _transform(site: Site) -> Transform:
    return cast(Transform, biject_to(site["fn"].support))


def _unconstrained(site: Site) -> Array:
    value = jnp.asarray(site["value"], jnp.result_type(float))
    return jnp.asarray(_transform(site).inv(value))
