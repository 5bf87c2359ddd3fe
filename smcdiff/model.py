"""Reading a NumPyro model: its diffusion site, its observations, and their structure.

`read` traces the model once, outside jit, and returns a `Problem`: a pytree whose leaves are the
prior found at the diffusion site and the array arguments of the model, and whose static part is the
model function and what was learned of its structure. A compiled run therefore serves every call of
the same model with arguments of the same shapes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.interpreters import partial_eval
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.primitives import Messenger

from smcdiff.errors import InputError
from smcdiff.priors.base import DiffusionDistribution

_WRAPPERS = (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)


def _unwrap(fn):
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
    return fn


class _FixDiffusionSite(Messenger):
    """Gives the diffusion site a value, so that tracing never runs the reverse process."""

    def __init__(self, fn=None, value=None):
        self.value = value
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] != "sample" or msg["value"] is not None:
            return
        if isinstance(_unwrap(msg["fn"]), DiffusionDistribution):
            shape = msg["fn"].batch_shape + msg["fn"].event_shape
            msg["value"] = jnp.zeros(shape) if self.value is None else self.value


@dataclasses.dataclass(frozen=True)
class _Static:
    """The static side of a model's arguments: tree structure, and the leaves that are not arrays."""

    structure: Any
    values: tuple
    is_array: tuple[bool, ...]

    def rebuild(self, arrays: tuple[Array, ...]) -> tuple[tuple, dict]:
        """(args, kwargs) from the array leaves."""
        remaining, others = iter(arrays), iter(self.values)
        leaves = [next(remaining) if flag else next(others) for flag in self.is_array]
        return jax.tree.unflatten(self.structure, leaves)


def _split(args: tuple, kwargs: dict) -> tuple[tuple[Array, ...], _Static]:
    """Array leaves (Python floats count) and the static rest."""
    leaves, structure = jax.tree.flatten((args, kwargs))
    kinds = (jax.Array, np.ndarray, np.generic, float, complex)
    flags = tuple(isinstance(leaf, kinds) for leaf in leaves)
    arrays = tuple(jnp.asarray(a) for a, flag in zip(leaves, flags, strict=True) if flag)
    others = tuple(a for a, flag in zip(leaves, flags, strict=True) if not flag)
    for value in others:
        try:
            hash(value)
        except TypeError as error:
            raise InputError(
                f"model argument of type {type(value).__name__} is neither an array nor hashable;"
                " pass arrays, numbers, strings, functions or pytrees of them"
            ) from error
    return arrays, _Static(structure, others, flags)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """A NumPyro model, read: everything that a sampler needs to know of it.

    Attributes:
        prior: the distribution of the diffusion site.
        arguments: array arguments of the model.
        model: the NumPyro model.
        static: the rest of the model's arguments.
        site: name of the diffusion site.
        observed_sites: names of the observed sites, ``numpyro.factor`` sites included.
        num_observations: number of observed scalars d_y (factors excluded).
        linear: whether every observed site is Gaussian with a mean affine in the diffusion site
            and a scale that does not depend on it.
    """

    prior: DiffusionDistribution
    arguments: tuple[Array, ...]
    model: Callable = dataclasses.field(metadata={"static": True})
    static: _Static = dataclasses.field(metadata={"static": True})
    site: str = dataclasses.field(metadata={"static": True})
    observed_sites: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    num_observations: int = dataclasses.field(metadata={"static": True})
    linear: bool = dataclasses.field(metadata={"static": True})

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event of the diffusion site."""
        return self.prior.event_shape

    def _observed(self, x: Float[Array, "*event"] | None = None) -> dict[str, dict]:
        args, kwargs = self.static.rebuild(self.arguments)
        trace = _trace(self.model, args, kwargs, x)
        return {name: trace[name] for name in self.observed_sites}

    def log_likelihood(self, x: Float[Array, "*event"]) -> Float[Array, ""]:
        """log p(y given x): all observed sites and factors, with their scales and masks."""
        terms = self.pointwise_log_likelihood(x).values()
        return sum((jnp.sum(term) for term in terms), jnp.zeros(()))

    def pointwise_log_likelihood(self, x: Float[Array, "*event"]) -> dict[str, Array]:
        """The log likelihood of each observed site, of the site's batch shape."""
        return {name: _site_log_prob(site) for name, site in self._observed(x).items()}

    def observations(self) -> dict[str, Array]:
        """Observed values by site; factors have none and are left out."""
        sites = self._observed()
        return {n: jnp.asarray(s["value"]) for n, s in sites.items() if not _is_factor(s)}

    def residual(self, x: Float[Array, "*event"]) -> Float[Array, " m"]:
        """Whitened residual of a linear-Gaussian observation.

        log_likelihood(x) = const - |residual(x)|^2 / 2; entries that are masked are 0.

        Args:
            x: one event.

        Returns:
            (num_observations,), all observed sites in order.

        Raises:
            InputError: the observation is not linear-Gaussian.
        """
        if not self.linear:
            raise InputError(f"site '{self.site}': the observation is not linear-Gaussian")
        return jnp.concatenate([_whiten(site) for site in self._observed(x).values()])


def _trace(model, args, kwargs, x=None):
    fixed = _FixDiffusionSite(handlers.seed(model, jax.random.key(0)), x)
    return handlers.trace(fixed).get_trace(*args, **kwargs)


def _is_factor(site) -> bool:
    return isinstance(_unwrap(site["fn"]), dist.Unit)


def _site_log_prob(site) -> Array:
    log_prob = site["fn"].log_prob(site["value"])
    return log_prob if site["scale"] is None else site["scale"] * log_prob


def _masks(fn, value: Array) -> Array:
    """Which entries of ``value`` count, of its shape."""
    mask = jnp.ones(jnp.shape(value), bool)
    while isinstance(fn, _WRAPPERS):
        if isinstance(fn, dist.MaskedDistribution):
            own = jnp.broadcast_to(jnp.asarray(fn._mask), fn.batch_shape)
            mask = mask & own.reshape(own.shape + (1,) * (mask.ndim - own.ndim))
        fn = fn.base_dist
    return mask


def _whiten(site) -> Float[Array, " m"]:
    base, value = _unwrap(site["fn"]), jnp.asarray(site["value"])
    misfit = value - jnp.broadcast_to(base.loc, value.shape)
    if isinstance(base, dist.MultivariateNormal):
        factor = jnp.broadcast_to(base.scale_tril, (*value.shape, value.shape[-1]))
        white = jax.scipy.linalg.solve_triangular(factor, misfit[..., None], lower=True)[..., 0]
    else:
        white = misfit / base.scale
    white = jnp.where(_masks(site["fn"], value), white, 0.0)
    if site["scale"] is not None:
        white = jnp.sqrt(site["scale"]) * white
    return jnp.ravel(white)


def read(
    model: Callable, args: tuple = (), kwargs: dict | None = None, *, linear: bool | None = None
) -> Problem:
    """Reads a NumPyro model.

    Args:
        model: the model; one of its sample sites has a `DiffusionDistribution`.
        args: positional arguments of the model.
        kwargs: keyword arguments of the model, the observed values among them.
        linear: None detects whether the observation is linear-Gaussian, True declares it, False
            denies it.

    Returns:
        The problem.

    Raises:
        InputError: the model or its data cannot be used; names the site and the remedy.
    """
    arrays, static = _split(args, kwargs or {})
    rebuilt_args, rebuilt_kwargs = static.rebuild(arrays)
    try:
        with numpyro.validation_enabled(False):  # our own checks can name the site
            trace = _trace(model, rebuilt_args, rebuilt_kwargs)
    except InputError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        raise InputError(
            f"the model fails on these arguments ({type(error).__name__}: {reason});"
            " run it under numpyro.handlers.seed to see where"
        ) from error
    site = _diffusion_site(trace)
    observed = _observed_sites(trace)
    for name in observed:
        _check_observation(name, trace[name])
    count = sum(jnp.size(trace[name]["value"]) for name in observed if not _is_factor(trace[name]))
    problem = Problem(
        _unwrap(trace[site]["fn"]), arrays, model, static, site, tuple(observed), count, False
    )
    _check_log_likelihood(problem)
    if linear is False:
        return problem
    gaussian = all(
        type(_unwrap(trace[name]["fn"])) in (dist.Normal, dist.MultivariateNormal)
        for name in observed
    )
    if linear and not gaussian:
        raise InputError(
            f"linear=True, but not all of the observed sites {observed} are Normal or"
            " MultivariateNormal; drop linear=True"
        )
    is_linear = gaussian and (bool(linear) or _is_linear(problem))
    return dataclasses.replace(problem, linear=is_linear)


def _diffusion_site(trace) -> str:
    sites = {n: s for n, s in trace.items() if s["type"] == "sample"}
    found = [n for n, s in sites.items() if isinstance(_unwrap(s["fn"]), DiffusionDistribution)]
    if not found:
        raise InputError(
            f"no site of the model (sites: {sorted(sites)}) has a diffusion prior; give one site a"
            " distribution of smcdiff.priors or smcdiff.load_prior"
        )
    if len(found) > 1:
        raise InputError(f"sites {found} all have diffusion priors; one is supported")
    (name,) = found
    site = sites[name]
    if site["is_observed"]:
        raise InputError(f"site '{name}' has a diffusion prior and is observed; leave it latent")
    if site["fn"].batch_shape or site["cond_indep_stack"]:
        raise InputError(
            f"site '{name}': a diffusion prior in a plate or with a batch shape is not supported;"
            " use SMC.run_batch for several observations"
        )
    if isinstance(site["fn"], dist.MaskedDistribution) or site["scale"] is not None:
        raise InputError(f"site '{name}': a masked or scaled diffusion prior is not supported")
    plates = [n for n, s in trace.items() if s["type"] == "plate" and s["args"][0] != len(s["value"])]
    if plates:
        raise InputError(f"plates {plates} subsample the data; use the whole plate")
    latent = [n for n, s in sites.items() if n != name and not s["is_observed"]]
    if latent and len(latent) == len(sites) - 1:
        raise InputError(f"no site is observed; pass data for {latent}, for example y=...")
    if latent:
        kind = "discrete latent" if any(sites[n]["fn"].is_discrete for n in latent) else "latent"
        raise InputError(
            f"{kind} sites {latent} besides '{name}': nuisance parameters are not supported yet;"
            " fix them with numpyro.handlers.condition or substitute"
        )
    return name


def _observed_sites(trace) -> list[str]:
    observed = [n for n, s in trace.items() if s["type"] == "sample" and s["is_observed"]]
    if not observed:
        raise InputError("the model has no observed site; pass its data, for example y=...")
    return observed


def _check_observation(name: str, site) -> None:
    value, fn = site["value"], site["fn"]
    if _is_factor(site):
        return
    shape = fn.batch_shape + fn.event_shape
    if jnp.shape(value) != shape:
        raise InputError(
            f"site '{name}': the observed value has shape {jnp.shape(value)}, its distribution"
            f" {shape}; broadcasting would count observations several times, so make them equal"
        )
    mask = _masks(fn, value)
    if not bool(jnp.all(jnp.isfinite(jnp.where(mask, value, 0.0)))):
        raise InputError(
            f"site '{name}': the observed value has NaN or infinite entries; mask them with"
            " numpyro.handlers.mask"
        )
    scale = getattr(_unwrap(fn), "scale", None)
    if scale is not None and not bool(jnp.all(jnp.asarray(scale) > 0)):
        raise InputError(f"site '{name}': its scale is not positive; noise must be > 0")


def _check_log_likelihood(problem: Problem) -> None:
    probe = 0.1 * jax.random.normal(jax.random.key(0), problem.event_shape)
    for name, terms in problem.pointwise_log_likelihood(probe).items():
        if bool(jnp.any(jnp.isnan(terms))):
            raise InputError(
                f"site '{name}': the log likelihood is NaN at a random x; check the"
                " operator and the noise"
            )


def _gaussian_parameters(problem: Problem, x) -> tuple[list[Array], list[Array]]:
    """Means and scales of the observed sites."""
    bases = [_unwrap(site["fn"]) for site in problem._observed(x).values()]
    is_dense = [isinstance(base, dist.MultivariateNormal) for base in bases]
    scales = [b.scale_tril if d else b.scale for b, d in zip(bases, is_dense, strict=True)]
    return [base.loc for base in bases], scales


def _depends_on_first(function, *args) -> bool:
    """Whether the output depends on the first argument, after dead code is removed."""
    jaxpr = jax.make_jaxpr(function)(*args)
    _, used = partial_eval.dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars))
    return used[0]


def _is_linear(problem: Problem) -> bool:
    """Two tests, each of which some nonlinear functions pass, but hardly both.

    The tangent of the mean must not depend on x (`round` and `stop_gradient` pass), and must agree
    with finite differences between three random points (`clip` passes where they are small).
    """
    points = jax.random.normal(jax.random.key(1), (3, *problem.event_shape))

    def means(x):
        return _gaussian_parameters(problem, x)[0]

    def tangent(x, direction):
        return jax.jvp(means, (x,), (direction,))

    try:
        if _depends_on_first(lambda x, v: tangent(x, v)[1], points[0], points[1]):
            return False
        if _depends_on_first(lambda x: _gaussian_parameters(problem, x)[1], points[0]):
            return False
    except (TypeError, ValueError, NotImplementedError):  # no derivative: a callback, say
        return False
    for end in points[1:]:
        values, slopes = tangent(points[0], end - points[0])
        for value, slope, other in zip(values, slopes, means(end), strict=True):
            size = 1.0 + jnp.maximum(jnp.max(jnp.abs(value)), jnp.max(jnp.abs(other)))
            if not bool(jnp.all(jnp.abs(value + slope - other) <= 1e-4 * size)):
                return False
    return True
