"""What is wrong with observed values and likelihoods, in one line that names the remedy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from smcdiff.errors import InputError, first_line
from smcdiff.problem import _sites as sites
from smcdiff.problem._sites import Site
from smcdiff.problem.problem import Problem


def check_shapes(observed: dict[str, Site]) -> None:
    """Raises ``InputError`` where observed values are no real arrays of their site's shape.

    Args:
        observed: observed sites of the model.

    Raises:
        InputError: wrong type, shape or dtype.
    """
    for name, site in observed.items():
        value, fn = site["value"], site["fn"]
        if sites.is_factor(site):
            continue
        if not hasattr(value, "dtype") and not isinstance(value, (bool, int, float, complex)):
            remedy = "an array"
            for entry in list(value)[:1] if isinstance(value, dict) else ():
                remedy = f"its arrays by keyword, {entry}=data[{entry!r}], or run(key, **data)"
            raise InputError(
                f"site '{name}': the observed value is a {type(value).__name__}; pass {remedy}"
            )
        shape = fn.batch_shape + fn.event_shape
        if jnp.shape(value) != shape:
            hint = "broadcasting would count observations several times, so make them equal"
            if isinstance(fn, dist.MaskedDistribution):
                hint = "a mask acts on batch axes, so leave out .to_event inside handlers.mask"
            raise InputError(
                f"site '{name}': the observed value has shape {jnp.shape(value)}, its distribution"
                f" {shape}; {hint}"
            )
        if jnp.iscomplexobj(value):
            raise InputError(
                f"site '{name}': the observed value is complex; observe its real and imaginary"
                " parts"
            )


def check_kinds(observed: dict[str, Site]) -> None:
    """Raises ``InputError`` where exact sites (Delta) cannot be used.

    Args:
        observed: observed sites of the model.

    Raises:
        InputError: some sites are exact and others not, or an exact one is scaled or complex.
    """
    exact = [name for name, site in observed.items() if sites.is_exact(site)]
    others = [name for name in observed if name not in exact]
    if exact and others:
        raise InputError(
            f"sites {exact} are observed without noise (Delta) and sites {others} are not; give all"
            " of them noise (dist.Normal), or none"
        )
    for name in exact:
        if observed[name]["scale"] is not None:
            raise InputError(
                f"site '{name}': handlers.scale has no meaning for an exact observation (Delta);"
                " leave it out"
            )
        if jnp.iscomplexobj(sites.mean(observed[name])):
            raise InputError(
                f"site '{name}': its value is complex; take the real and imaginary parts"
            )


def check_likelihood(problem: Problem) -> None:
    """Raises ``InputError`` where observed values or the likelihood cannot be used.

    The model is run at random values of the diffusion site: at zero, scales or means may vanish.

    Args:
        problem: the problem.

    Raises:
        InputError: a model that jit cannot trace, values that are NaN, infinite or outside the
            support, noise that is not positive, everything masked, or a log likelihood that is
            complex, NaN or plus infinity.
    """
    try:
        findings, terms = _probe(problem, problem.prior.probe_points(2))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"the model runs, but not under jax.jit and jax.vmap ({first_line(error)}); compute"
            " with jax.numpy, give a jax.pure_callback its vmap_method, and pass switches as int,"
            " bool or str"
        ) from error
    for name, finding in findings.items():
        for what, remedy in _REMEDIES.items():
            if not finding[what]:
                raise InputError(f"site '{name}': {remedy}")
    if len(findings) == len(terms) and not any(f["used"] for f in findings.values()):
        raise InputError(
            f"sites {list(findings)}: every observed entry is masked, so there is nothing to"
            " condition on; True keeps an entry, check that the mask is not inverted"
        )
    for name, term in terms.items():
        if not jnp.issubdtype(term.dtype, jnp.floating):
            raise InputError(
                f"site '{name}': its log likelihood is {term.dtype}, not a real number; take the"
                " real and imaginary parts of a complex mean, both of them observed"
            )
        if np.any(np.isnan(term) | np.isposinf(term)):
            raise InputError(
                f"site '{name}': the log likelihood is NaN or infinite at a random x; check the"
                " operator and the noise"
            )


def check_plausible(problem: Problem) -> None:
    """Raises ``InputError`` where linear-Gaussian observations are out of the prior's reach.

    A prior of variance v a coordinate, averaged, moves an observed value by a standard deviation of
    at most sqrt(d v) |a|, whatever its correlations. Data beyond 100 of those are in other units.

    Args:
        problem: a problem whose observation is linear, Gaussian or exact.

    Raises:
        InputError: observed values far outside; names the site.
    """
    for name, excess in _excess(problem, problem.prior.probe_points(16)).items():
        if excess > _FAR:
            raise InputError(
                f"site '{name}': observed values lie far outside what the prior can produce, by"
                f" {excess:.3g} standard deviations; check units and offsets of the data, the"
                " operator and the prior"
            )


_FAR = 100.0


@jax.jit
def _excess(problem: Problem, points: Float[Array, " n *event"]) -> dict[str, Array]:
    """Largest misfit of each site over what prior and noise allow.

    How far x moves the observation is taken from the derivative: differences of misfits would be
    rounded to the size of y, or overflow with it.
    """
    centre = jnp.mean(points, axis=0)

    def misfits(x):
        return {name: sites.whiten(site) for name, site in problem.observe(x).sites.items()}

    def moved(x):
        return jax.jvp(misfits, (centre,), (x - centre,))[1]

    def largest(misfit, moved):
        reach = jnp.sqrt(problem.size) * jnp.std(moved, axis=0)
        noise = jnp.ones(())
        if problem.is_noise_free:  # what rows that hardly see x miss is left to `check_consistent`
            best = jnp.max(reach, initial=0.0)
            noise = jnp.where(best > 0.0, 1e-4 * best, jnp.inf)
        return jnp.max(jnp.abs(misfit) / (noise + reach), initial=0.0)

    return jax.tree.map(largest, misfits(centre), jax.vmap(moved)(points))


_REMEDIES = {
    "finite": "the observed value has NaN or infinite entries; mask them with"
    " numpyro.handlers.mask",
    "inside": "observed values lie outside the support of its distribution; check their range",
    "positive": "its scale is not positive and finite; noise must be > 0 (put 1 at entries that are"
    " masked, with numpyro.handlers.mask), and an exact observation of a linear mean is"
    " dist.Delta(mean)",
    "definite": "its covariance is not positive definite; add a small multiple of the identity",
    "defined": "its Delta is NaN or infinite at a random x; check the operator",
    "plain": "the log_density of its Delta is not 0; leave it out",
}


@jax.jit  # one compilation, where eager costs one an operation
def _probe(problem: Problem, points: Float[Array, " 2 *event"]):
    """Findings on each observed site that is no factor, and the log likelihood at the points."""
    observed = problem.observe(points[0]).sites.items()
    findings = {name: _examine(site) for name, site in observed if not sites.is_factor(site)}
    return findings, jax.vmap(lambda x: problem.observe(x).pointwise)(points)


def _examine(site: Site) -> dict[str, Array]:
    """Whether a site's values and noise are as they should be, and any entry is used."""
    value, base = jnp.asarray(site["value"]), sites.unwrap(site["fn"])
    used = sites.mask(site["fn"], value)
    yes = jnp.asarray(True)
    result = {"finite": jnp.all(jnp.isfinite(value) | ~used), "used": jnp.any(used)}
    result |= dict.fromkeys(_REMEDIES.keys() - result.keys(), yes)
    support = type(base).support
    if isinstance(support, constraints.Constraint) and not constraints.is_dependent(support):
        inside = jnp.asarray(support(value))
        inside = inside.reshape(inside.shape + (1,) * (used.ndim - inside.ndim))
        result["inside"] = jnp.all(inside | ~used)
    if sites.is_exact(site):
        location = jnp.broadcast_to(sites.mean(site), value.shape)
        result["defined"] = jnp.all(jnp.isfinite(location) | ~used)
        result["plain"] = jnp.all(jnp.asarray(base.log_density) == 0.0)
    elif isinstance(base, dist.MultivariateNormal):
        diagonal = jnp.diagonal(sites.gaussian_scale(site), axis1=-2, axis2=-1)
        result["definite"] = jnp.all((diagonal > 0) & jnp.isfinite(diagonal))
    elif getattr(base, "scale", None) is not None:
        scale = jnp.asarray(base.scale)
        result["positive"] = jnp.all((scale > 0) & jnp.isfinite(scale))
    return result
