"""What is wrong with the structure of a model, in one line that names the site and the remedy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from smcdiff.errors import InputError
from smcdiff.problem import _sites as sites
from smcdiff.problem._sites import Site


def diffusion_sites(trace: dict[str, Site]) -> dict[str, Site]:
    """The diffusion sites of a model whose other latent structure is supported.

    Args:
        trace: sites of the model.

    Raises:
        InputError: no diffusion site, or a structure that is not supported.
    """
    found = {n: s for n, s in trace.items() if s["type"] == "sample"}
    diffusion = {n: s for n, s in found.items() if sites.is_diffusion(s["fn"])}
    if not diffusion:
        raise InputError(
            f"no site of the model (sites: {sorted(found)}) has a diffusion prior; give one site a"
            " distribution of smcdiff.priors or smcdiff.load_prior"
        )
    # First, because a plate that subsamples scales what is in it.
    _check_plates_and_params(trace)
    for name, site in diffusion.items():
        _check_prior(name, site)
    return diffusion


def check_stages(stages: list[list[str]], unknown: tuple[str, ...], found: dict[str, Site]) -> None:
    """Raises ``InputError`` where what else a model has does not go with dependent diffusion sites.

    Args:
        stages: names of the sites of each.
        unknown: names of the unknown parameters.
        found: sites of the model.
    """
    later = [name for names in stages[1:] for name in names]
    if unknown:
        raise InputError(
            f"sites {list(unknown)} are unknown, and the diffusion priors of {later} depend on"
            " other diffusion sites, which is not supported together; give the values of the former"
            " with numpyro.handlers.substitute(model, {...})"
        )
    exact = [n for n, s in found.items() if s["type"] == "sample" and sites.is_exact(s)]
    if exact:
        raise InputError(
            f"site '{exact[0]}' is observed without noise (Delta), and the diffusion priors of"
            f" {later} depend on other diffusion sites; give the site noise (dist.Normal)"
        )


def _check_prior(name: str, site: Site) -> None:
    fn, prior = site["fn"], sites.unwrap(site["fn"])
    if site["is_observed"]:
        raise InputError(
            f"site '{name}' has a diffusion prior and is observed; leave it latent and observe a"
            " function of it"
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
        raise InputError(
            f"plates {plates} subsample the data (subsample_size), and a posterior is of all of"
            " them; use the whole plate"
        )
    params = [n for n, s in trace.items() if s["type"] == "param"]
    if params:
        raise InputError(
            f"numpyro.param sites {params} would stay at their start; pass their values as"
            " arguments of the model"
        )


def parameter_sites(trace: dict[str, Site]) -> tuple[str, ...]:
    """Names of the unknown parameters: the latent sites beside the diffusion sites.

    Args:
        trace: sites of the model.

    Raises:
        InputError: no site is observed, or a latent site that is discrete, or whose prior cannot be
            sampled or is none.
    """
    found = {n: s for n, s in trace.items() if s["type"] == "sample"}
    unobserved = {n: s for n, s in found.items() if not s["is_observed"]}
    latent = {n: s for n, s in unobserved.items() if not sites.is_diffusion(s["fn"])}
    masked = [n.removesuffix("_unobserved") for n in latent if n.endswith("_unobserved")]
    masked = [n for n in masked if f"{n}_observed" in found]
    if masked:
        raise InputError(
            f"site '{masked[0]}': obs_mask is not supported, because it adds a latent site; put"
            " numpyro.handlers.mask around the site"
        )
    if latent and len(unobserved) == len(found):
        raise InputError(f"no site is observed; pass data for {sorted(latent)}, for example y=...")
    for other, site in latent.items():
        _check_parameter(other, site)
    return tuple(latent)


def _check_parameter(name: str, site: Site) -> None:
    fn = site["fn"]
    if fn.is_discrete:
        raise InputError(
            f"site '{name}' is latent and discrete, which no sampler here can move; sum over its"
            " values in the likelihood (dist.MixtureSameFamily, or logsumexp in numpyro.factor), or"
            " pass its data"
        )
    if isinstance(fn, dist.MaskedDistribution) or site["scale"] is not None:
        raise InputError(
            f"site '{name}': a masked or scaled prior is no density to draw from; put the handler"
            " around the observed sites only"
        )
    try:
        dist.biject_to(fn.support)
    except NotImplementedError as error:
        raise InputError(
            f"site '{name}': NumPyro has no transform to its support {fn.support}; choose another"
            " distribution, or transform an unconstrained site in the model"
        ) from error


TAKEN = frozenset({
    "chain", "draw", "particle", "step", "log_weight", "founder", "log_likelihood", "prior_widths",
})  # fmt: skip
"""Names that the groups of the export have for themselves."""


def check_exported(trace: dict[str, Site]) -> None:
    """Raises ``InputError`` where a site could not be stored in the posterior file.

    Args:
        trace: sites of the model.

    Raises:
        InputError: a name that netCDF or the export cannot hold, or a deterministic site that is no
            real array.
    """
    found = {n: s for n, s in trace.items() if s["type"] in ("sample", "deterministic")}
    arrays = {n: s["value"] for n, s in found.items() if hasattr(s["value"], "dtype")}
    axes = {f"{n}_dim_{i}" for n, value in arrays.items() for i in range(np.ndim(value))}
    for name, site in found.items():
        if not name:
            raise InputError("a site has the name '', which a netCDF file cannot hold; name it")
        if "/" in name:
            raise InputError(
                f"site '{name}': a netCDF file cannot hold a name with '/'; with handlers.scope"
                " pass divider='.'"
            )
        if name in TAKEN or name in axes:
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
