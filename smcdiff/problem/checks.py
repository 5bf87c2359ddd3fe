"""What is wrong with a model or its data, said in one line that names the site and the remedy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from smcdiff.errors import InputError, first_line
from smcdiff.problem import sites
from smcdiff.problem.linearity import probe_points
from smcdiff.problem.problem import Problem
from smcdiff.problem.sites import Site


def diffusion_site(trace: dict[str, Site]) -> str:
    """Name of the one diffusion site of a model whose other latent structure is supported.

    Args:
        trace: sites of the model.

    Returns:
        The name.

    Raises:
        InputError: none or several diffusion sites, or a structure that is not supported.
    """
    found = {n: s for n, s in trace.items() if s["type"] == "sample"}
    names = [n for n, s in found.items() if sites.is_diffusion(s["fn"])]
    if not names:
        raise InputError(
            f"no site of the model (sites: {sorted(found)}) has a diffusion prior; give one site a"
            " distribution of smcdiff.priors or smcdiff.load_prior"
        )
    if len(names) > 1:
        raise InputError(f"sites {names} all have diffusion priors; one is supported: join them")
    (name,) = names
    _check_prior(name, found[name])
    _check_plates_and_params(trace)
    _check_latents(name, found)
    return name


def _check_prior(name: str, site: Site) -> None:
    fn, prior = site["fn"], sites.unwrap(site["fn"])
    if site["is_observed"]:
        raise InputError(
            f"site '{name}' has a diffusion prior and is observed; leave it latent and observe a"
            " function of it"
        )
    if fn.batch_shape or site["cond_indep_stack"] or fn.event_shape != prior.event_shape:
        raise InputError(
            f"site '{name}': a diffusion prior in a plate or with a batch shape is not supported;"
            " use SMC.run_batch for several observations"
        )
    if isinstance(fn, dist.MaskedDistribution) or site["scale"] is not None:
        raise InputError(
            f"site '{name}': a masked or scaled diffusion prior is not supported; put the handler"
            " around the observed sites only"
        )
    if prior.support is not None and prior.support.is_discrete:
        raise InputError(
            f"site '{name}': a diffusion prior of integers is not supported;"
            " diffuse a real-valued representation"
        )


def _check_plates_and_params(trace: dict[str, Site]) -> None:
    plates = [
        n for n, s in trace.items() if s["type"] == "plate" and s["args"][0] != len(s["value"])
    ]
    if plates:
        raise InputError(f"plates {plates} subsample the data; use the whole plate")
    params = [n for n, s in trace.items() if s["type"] == "param"]
    if params:
        raise InputError(
            f"numpyro.param sites {params} would stay at their start; pass their values as"
            " arguments of the model"
        )


def _check_latents(name: str, found: dict[str, Site]) -> None:
    latent = [n for n, s in found.items() if n != name and not s["is_observed"]]
    masked = [n.removesuffix("_unobserved") for n in latent if n.endswith("_unobserved")]
    masked = [n for n in masked if f"{n}_observed" in found]
    if masked:
        raise InputError(
            f"site '{masked[0]}': obs_mask is not supported, because it adds a latent site; put"
            " numpyro.handlers.mask around the site"
        )
    if latent and len(latent) == len(found) - 1:
        raise InputError(f"no site is observed; pass data for {latent}, for example y=...")
    if latent:
        kind = "discrete latent" if any(found[n]["fn"].is_discrete for n in latent) else "latent"
        raise InputError(
            f"{kind} sites {latent} besides '{name}': nuisance parameters are not supported yet;"
            " pass their data, or make them arguments of the model"
        )


_TAKEN = {"chain", "draw", "particle", "step", "log_weight", "founder", "log_likelihood"}


def check_exported(trace: dict[str, Site]) -> None:
    """Raises ``InputError`` where a site could not be stored in the posterior file.

    Args:
        trace: sites of the model.

    Raises:
        InputError: a name that netCDF or the export cannot hold, or a deterministic site that is no
            real array.
    """
    found = {n: s for n, s in trace.items() if s["type"] in ("sample", "deterministic")}
    axes = {f"{n}_dim_{i}" for n, s in found.items() for i in range(np.ndim(s["value"]))}
    for name, site in found.items():
        if "/" in name:
            raise InputError(
                f"site '{name}': a netCDF file cannot hold a name with '/'; with handlers.scope"
                " pass divider='.'"
            )
        if name in _TAKEN or name in axes:
            raise InputError(f"site '{name}': the posterior file uses that name; choose another")
        if site["type"] == "deterministic":
            value = site["value"]
            if not hasattr(value, "dtype") and not isinstance(value, (bool, int, float, complex)):
                raise InputError(
                    f"site '{name}': its value is a {type(value).__name__}; record an array"
                )
            if jnp.iscomplexobj(value):
                raise InputError(
                    f"site '{name}': its value is complex; record real and imaginary parts"
                )


def observed_sites(trace: dict[str, Site]) -> tuple[str, ...]:
    """Names of the observed sites and factors; raises ``InputError`` where there are none."""
    names = [n for n, s in trace.items() if s["type"] == "sample" and s["is_observed"]]
    if not names:
        raise InputError("the model has no observed site; pass its data, for example y=...")
    return tuple(names)


def check_observed_shapes(observed: dict[str, Site]) -> None:
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
            raise InputError(
                f"site '{name}': the observed value is a {type(value).__name__}; pass an array"
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
        findings, terms = _probe(problem, probe_points(problem.prior, 2))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"the model runs, but not under jax.jit ({first_line(error)}); compute with jax.numpy,"
            " and pass switches as int, bool or str"
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
    for name, excess in _excess(problem, probe_points(problem.prior, 16)).items():
        if excess > _FAR:
            raise InputError(
                f"site '{name}': observed values lie far outside what the prior can produce, by"
                f" {excess:.0f} standard deviations; check units and offsets of the data, the"
                " operator and the prior"
            )


_FAR = 100.0


@jax.jit
def _excess(problem: Problem, points: Float[Array, " n *event"]) -> dict[str, Array]:
    """Largest misfit of each site over what prior and noise allow."""

    def misfits(x):
        return {name: sites.whiten(site) for name, site in problem.observed(x).items()}

    def largest(misfit):
        reach = jnp.sqrt(points[0].size) * jnp.std(misfit, axis=0)
        noise = jnp.ones(())
        if problem.noise_free:  # what rows that hardly see x miss by is left to `noise_free`
            best = jnp.max(reach, initial=0.0)
            noise = jnp.where(best > 0.0, 1e-4 * best, jnp.inf)
        return jnp.max(jnp.abs(jnp.mean(misfit, axis=0)) / (noise + reach), initial=0.0)

    return jax.tree.map(largest, jax.vmap(misfits)(points))


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
    observed = problem.observed(points[0]).items()
    findings = {name: _examine(site) for name, site in observed if not sites.is_factor(site)}
    return findings, jax.vmap(problem.pointwise_log_likelihood)(points)


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
