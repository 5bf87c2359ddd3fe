"""The sites of a traced model: what kind each is, its log density and its residual."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from smcdiff.priors import Prior
from smcdiff.problem import _lock as lock

Site = dict[str, Any]
_WRAPPERS = (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)


def unwrap(fn: Any) -> Any:
    """The distribution under Independent, Expanded and Masked."""
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
    return fn


def is_diffusion(fn) -> bool:
    """Whether a distribution is a diffusion prior, perhaps wrapped."""
    return isinstance(unwrap(fn), Prior)


def is_factor(site: Site) -> bool:
    """Whether a site comes from ``numpyro.factor``."""
    return isinstance(unwrap(site["fn"]), dist.Unit)


def log_prob(site: Site) -> Array:
    """Log density of a site's value, with its mask and scale, of its batch shape.

    Of an exact site, which has none to give, it is 0, on the understanding that x satisfies it.
    """
    if is_exact(site):
        return jnp.zeros(site["fn"].batch_shape)
    with lock.NUMPYRO:
        terms = site["fn"].log_prob(site["value"])
    return jnp.broadcast_to(_scale(site, 0), terms.shape) * terms


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
    with lock.NUMPYRO:
        terms = base.mask(jnp.all(mask(fn, value), axis=axes)).log_prob(value)
    scale = _scale(site, len(fn.event_shape) - len(base.event_shape))
    return jnp.ravel(jnp.broadcast_to(scale, terms.shape) * terms)


def widened_peak(
    site: Site, peaks: Float[Array, " n"], variances: Float[Array, "..."]
) -> Float[Array, " n"]:
    """About how large each entry's density gets where its centre is not known.

    A density of k numbers that is f at most is about as wide as a Gaussian of variance
    f^(-2/k) / (2 pi), to which that of its centre is added. Exact for Gaussians of equal noise.

    Args:
        site: the site.
        peaks: log f of its entries, in the order of `entry_log_prob`.
        variances: of its centre, of its value's shape.

    Returns:
        The logs; infinite where there is no centre (factors), or nothing seen (masks).
    """
    if is_factor(site):
        return jnp.full_like(peaks, jnp.inf)
    base = unwrap(site["fn"])
    size, axes = math.prod(base.event_shape), tuple(range(-len(base.event_shape), 0))
    variance = jnp.ravel(jnp.mean(variances, axis=axes))
    is_seen = jnp.ravel(jnp.all(mask(site["fn"], site["value"]), axis=axes))
    both = jnp.logaddexp(-2.0 * peaks / size, jnp.log(2.0 * jnp.pi * variance))
    return jnp.where(is_seen, -0.5 * size * both, jnp.inf)


def _scale(site: Site, num_axes: int) -> Array:
    """The scale of a site, of its batch shape as the log density is, and ``num_axes`` behind."""
    scale = jnp.asarray(1.0 if site["scale"] is None else site["scale"])
    return scale.reshape(scale.shape + (1,) * num_axes)


def log_peak(site: Site) -> Float[Array, ""]:
    """Log density of a Gaussian site where its value is its mean; 0 of an exact one."""
    at_mean = jnp.broadcast_to(mean(site), jnp.shape(site["value"]))
    return jnp.sum(log_prob({**site, "value": at_mean}))


def centre(site: Site) -> Array:
    """A value in the middle of a site's distribution: its mean, of whole numbers the nearest.

    Where that is not defined it is the location, without one and of factors the site's own value.
    """
    value, fn = jnp.asarray(site["value"]), site["fn"]
    if is_factor(site):
        return value
    try:
        with lock.NUMPYRO:
            mean = jnp.asarray(fn.mean)
    except (NotImplementedError, AttributeError):
        return value
    if mean.shape != value.shape:
        return value
    mean = jnp.round(mean) if fn.is_discrete else mean
    other = jnp.broadcast_to(getattr(unwrap(fn), "loc", value), value.shape)  # of Cauchy's
    return jnp.where(jnp.isfinite(mean), mean, other).astype(value.dtype)


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
        white = difference / jnp.broadcast_to(gaussian_scale(site), difference.shape)
    scale = jnp.sqrt(_scale(site, len(site["fn"].event_shape)))
    return jnp.ravel(jnp.broadcast_to(scale, white.shape) * white)


def precision_roots(site: Site) -> Float[Array, " m"] | None:
    """What whitening multiplies each entry of the misfit by, flat; 0 where it is masked.

    None where it is no multiplication: the noise of a MultivariateNormal site is correlated.
    """
    if isinstance(unwrap(site["fn"]), dist.MultivariateNormal):
        return None
    value = jnp.asarray(site["value"])
    used = mask(site["fn"], value)
    if is_exact(site):
        return jnp.ravel(used).astype(jnp.result_type(float))
    scale = jnp.sqrt(_scale(site, len(site["fn"].event_shape)))
    roots = jnp.broadcast_to(scale, value.shape) / jnp.broadcast_to(
        gaussian_scale(site), value.shape
    )
    return jnp.ravel(jnp.where(used, roots, 0.0))
