"""The sites of a traced model: finding them, and the log density and residual of one site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.primitives import Messenger

from smcdiff.errors import InputError
from smcdiff.priors.base import DiffusionDistribution

Site = dict[str, Any]
_WRAPPERS = (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)


def unwrap(fn: Any) -> Any:
    """The distribution under Independent, Expanded and Masked."""
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
    return fn


def is_diffusion(fn) -> bool:
    """Whether a distribution is a diffusion prior, perhaps wrapped."""
    return isinstance(unwrap(fn), DiffusionDistribution)


def is_factor(site: Site) -> bool:
    """Whether a site comes from ``numpyro.factor``."""
    return isinstance(unwrap(site["fn"]), dist.Unit)


class _FixDiffusionSite(Messenger):
    """Gives the diffusion site a value, so that tracing never runs the reverse process."""

    def __init__(self, fn=None, value=None):
        self.value = value
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] != "sample" or msg["is_observed"]:
            return
        name, fn = msg["name"], msg["fn"]
        base = unwrap(fn)
        if isinstance(base, dist.TransformedDistribution) and is_diffusion(base.base_dist):
            raise InputError(
                f"site '{name}': a transformed diffusion prior is not supported; sample the prior"
                " itself and transform the value in the model"
            )
        if not is_diffusion(fn):
            return
        if msg["value"] is not None:  # a handler inside the model came first
            raise InputError(
                f"site '{name}' has a diffusion prior but its value is already set by a handler;"
                " remove handlers.substitute or condition from that site"
            )
        shape = fn.batch_shape + fn.event_shape
        msg["value"] = jnp.zeros(shape) if self.value is None else self.value


def trace(
    model: Callable, args: tuple, kwargs: dict, x: Float[Array, "*event"] | None = None
) -> dict[str, Site]:
    """The sites of one run of a model.

    Args:
        model: a NumPyro model.
        args: its positional arguments.
        kwargs: its keyword arguments.
        x: value of the diffusion site; None is zeros.

    Returns:
        Sites by name.
    """
    fixed = _FixDiffusionSite(handlers.seed(model, jax.random.key(0)), x)
    return handlers.trace(fixed).get_trace(*args, **kwargs)


def log_prob(site: Site) -> Array:
    """Log density of a site's value, with its mask and scale, of its batch shape.

    Of an exact site, which has none to give, it is 0, on the understanding that x satisfies it.
    """
    if is_exact(site):
        return jnp.zeros(site["fn"].batch_shape)
    terms = site["fn"].log_prob(site["value"])
    return terms if site["scale"] is None else site["scale"] * terms


def entry_log_prob(site: Site, value: Array | None = None) -> Float[Array, " n"]:
    """Log density of every entry of a site (``to_event`` undone), with mask and scale, flat.

    Args:
        site: the site; of a factor, every entry of the factor.
        value: a value in place of the site's own.
    """
    value = jnp.asarray(site["value"]) if value is None else value
    if is_factor(site):
        return jnp.ravel(log_prob({**site, "value": value}))
    fn, base = site["fn"], unwrap(site["fn"])
    axes = tuple(range(-len(base.event_shape), 0))
    # NumPyro's own mask keeps values that are masked out of the gradient, too.
    terms = base.mask(jnp.all(mask(fn, value), axis=axes)).log_prob(value)
    return jnp.ravel(_scale(site, len(fn.event_shape) - len(base.event_shape)) * terms)


def _scale(site: Site, num_axes: int) -> Array:
    """The scale of a site, of its batch shape as the log density is, and ``num_axes`` behind."""
    scale = jnp.asarray(1.0 if site["scale"] is None else site["scale"])
    return scale.reshape(scale.shape + (1,) * num_axes)


def log_peak(site: Site) -> Float[Array, ""]:
    """Log density of a Gaussian site where its value is its mean; 0 of an exact one."""
    at_mean = jnp.broadcast_to(mean(site), jnp.shape(site["value"]))
    return jnp.sum(log_prob({**site, "value": at_mean}))


def mask(fn, value: Array) -> Array:
    """Which entries of ``value`` count, of its shape."""
    result = jnp.ones(jnp.shape(value), bool)
    while isinstance(fn, _WRAPPERS):
        if isinstance(fn, dist.MaskedDistribution):
            own = jnp.broadcast_to(jnp.asarray(fn._mask), fn.batch_shape)
            # Trailing axes are event axes; leading ones may have been expanded since.
            result = result & own.reshape(own.shape + (1,) * len(fn.event_shape))
        fn = fn.base_dist
    return result


def is_gaussian(site: Site) -> bool:
    """Whether a site is Normal or MultivariateNormal; subclasses may differ, so they are not."""
    return type(unwrap(site["fn"])) in (dist.Normal, dist.MultivariateNormal)


def is_exact(site: Site) -> bool:
    """Whether a site is a Delta: its value is observed without noise."""
    return type(unwrap(site["fn"])) is dist.Delta


def mean(site: Site) -> Array:
    """Mean of a Gaussian or exact site."""
    base = unwrap(site["fn"])
    return jnp.asarray(base.v if is_exact(site) else base.loc)


def gaussian_scale(site: Site) -> Array:
    """Standard deviation of a Normal site, Cholesky factor of a MultivariateNormal one."""
    base = unwrap(site["fn"])
    dense = isinstance(base, dist.MultivariateNormal)
    return jnp.asarray(base.scale_tril if dense else base.scale)


def misfit(site: Site) -> Array:
    """Misfit y - mean of a Gaussian or exact site, in the units of y; masked entries are 0."""
    value = jnp.asarray(site["value"])
    difference = value - jnp.broadcast_to(mean(site), value.shape)
    return jnp.where(mask(site["fn"], value), difference, 0.0)


def whiten(site: Site) -> Float[Array, " m"]:
    """Whitened misfit L^{-1} (y - mean) of a Gaussian site, flat; masked entries are 0.

    Of an exact site it is the misfit itself.
    """
    base, difference = unwrap(site["fn"]), misfit(site)
    if is_exact(site):
        return jnp.ravel(difference)
    if isinstance(base, dist.MultivariateNormal):
        size = difference.shape[-1]
        factor = jnp.broadcast_to(gaussian_scale(site), (*difference.shape, size))
        white = jax.scipy.linalg.solve_triangular(factor, difference[..., None], lower=True)[..., 0]
    else:
        white = difference / base.scale
    return jnp.ravel(jnp.sqrt(_scale(site, len(site["fn"].event_shape))) * white)
