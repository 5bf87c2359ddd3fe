"""Unknown parameters whose law given all else is known in closed form: drawn, and not moved.

The observed sites are Gaussian with whitened misfits w. Two kinds of parameters are conjugate:

* the scale of the noise of some entries: their variance with an inverse-gamma prior, their
  precision with a gamma prior, or their standard deviation with a half-Cauchy prior, which is an
  inverse gamma of the variance given an inverse-gamma scale (Wand et al. 2011, result 5);
* coefficients with a normal prior in which the means are affine: Bayesian linear regression.

Before the last step psi_s is the likelihood at the denoised mean m with the variances widened, in
whitened units by v_i (`smcdiff.twists.Widened`). It is the integral of the likelihood over what m
may be off in each entry, e_i ~ N(0, v_i); so e is drawn given y and the parameters, and the
parameters given y and e (Tanner and Wong 1987), which leaves p(theta) psi_s as it is. For that the
operator may not depend on coefficients; at the last step, where x_0 is there, it may.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpyro.distributions import biject_to

from smcdiff.base.module import Module, static
from smcdiff.problem import Problem
from smcdiff.problem import _sites as sites
from smcdiff.problem._dependence import depends_on_first

_MOST_ENTRIES = 64
"""Of a parameter, whose derivatives of all misfits are taken."""
_TOLERANCE = 1e-3
"""Of float32 misfits, relative to the largest."""


class Conjugate(Module):
    """A parameter that is drawn given all else.

    Attributes:
        name: of its site.
        separable: whether what of x the observation sees does not depend on it.
    """

    name: str = static()
    separable: bool = static(default=True)

    def draw(
        self, key: PRNGKeyArray, problem: Problem, misfit: Float[Array, " m"], x: Array
    ) -> Float[Array, "*shape"]:
        """The value given all else.

        Args:
            key: random key.
            problem: at the present values.
            misfit: whitened, less what the entries of x_0 are off.
            x: the event at which it was taken.
        """
        raise NotImplementedError(f"{type(self).__name__} must define draw")

    @jax.jit  # one compilation, where eager costs one an operation
    def fits(self, problem: Problem, x: Float[Array, "*event"]) -> Bool[Array, ""]:
        """Whether the misfits depend on the value as it takes for granted."""
        raise NotImplementedError(f"{type(self).__name__} must define fits")


class NoiseScale(Conjugate):
    """The scale of the noise: the standard deviation goes with a power of the value."""

    priors: ClassVar[dict] = {dist.InverseGamma: 0.5, dist.Gamma: -0.5, dist.HalfCauchy: 1.0}
    power: float = static(default=0.5)

    def draw(
        self, key: PRNGKeyArray, problem: Problem, misfit: Float[Array, " m"], x: Array
    ) -> Float[Array, "*shape"]:
        """See `Conjugate`."""
        site = problem.trace(x)[self.name]
        value, prior = jnp.asarray(site["value"]), sites.unwrap(site["fn"])
        slopes, of_normaliser = jax.jacfwd(_misfit_and_normaliser(problem, self.name, x))(value)
        seen = slopes.reshape(misfit.size, value.size) != 0.0
        squares = (misfit**2 @ seen).reshape(value.shape)
        count = -value / self.power * of_normaliser  # of entries, each as often as it counts
        key_own, key_scale = jax.random.split(key)
        if self.power == -0.5:
            shape, rate = jnp.broadcast_arrays(prior.concentration, prior.rate)
            rate = rate + 0.5 * squares / value
            return jax.random.gamma(key_own, shape + 0.5 * count, value.shape) / rate
        if self.power == 0.5:
            shape, rate = prior.concentration, prior.rate
            rate = rate + 0.5 * squares * value
            return rate / jax.random.gamma(key_own, shape + 0.5 * count, value.shape)
        # A half-Cauchy scale: its square is an inverse gamma given the inverse gamma b.
        inverse = jax.random.gamma(key_scale, 1.0, value.shape)
        inverse = inverse / (1.0 / prior.scale**2 + 1.0 / value**2)
        rate = inverse + 0.5 * squares * value**2
        return jnp.sqrt(rate / jax.random.gamma(key_own, 0.5 * (1.0 + count), value.shape))

    @jax.jit  # one compilation, where eager costs one an operation
    def fits(self, problem: Problem, x: Float[Array, "*event"]) -> Bool[Array, ""]:
        """Whether whitened misfits go with the inverse power, of one entry of the value at most."""
        function, value = _misfit_and_normaliser(problem, self.name, x), _value(problem, self.name)
        (misfit, constant), (slopes, of_constant) = function(value), jax.jacfwd(function)(value)
        ratios = slopes.reshape(misfit.size, value.size) * jnp.ravel(value)[None]
        seen = jnp.abs(ratios) > _TOLERANCE * jnp.max(jnp.abs(misfit))
        expected = jnp.where(seen, -self.power * misfit[:, None], 0.0)
        scaled, other_constant = function(2.0 * value)
        # d log N / d log value is a constant where it is that of a scale.
        change = jnp.log(2.0) * jnp.sum(of_constant * value)
        known = jnp.where(seen.any(axis=1), 2.0**-self.power, 1.0) * misfit
        return (
            jnp.all(seen.sum(axis=1) <= 1)
            & _close(ratios, expected, misfit)
            & _close(scaled, known, misfit)
            & (jnp.abs(other_constant - constant - change) <= _TOLERANCE * (1 + jnp.abs(change)))
        )


class Coefficients(Conjugate):
    """Coefficients in which the means are affine, with a normal prior."""

    priors: ClassVar[dict] = {dist.Normal: None, dist.MultivariateNormal: None}

    def draw(
        self, key: PRNGKeyArray, problem: Problem, misfit: Float[Array, " m"], x: Array
    ) -> Float[Array, "*shape"]:
        """See `Conjugate`."""
        site = problem.trace(x)[self.name]
        value, prior = jnp.asarray(site["value"]), sites.unwrap(site["fn"])
        slopes = jax.jacfwd(_misfit_and_normaliser(problem, self.name, x))(value)[0]
        slopes = slopes.reshape(misfit.size, value.size)
        off = jnp.ravel(value - jnp.broadcast_to(prior.loc, value.shape))
        if isinstance(prior, dist.MultivariateNormal):
            size = prior.event_shape[0]
            own = jnp.asarray(prior.precision_matrix)  # pyright: ignore[reportArgumentType]
            blocks = jnp.broadcast_to(own, (value.size // size, size, size))
            precision = jax.scipy.linalg.block_diag(*blocks)
        else:
            precision = jnp.diag(jnp.ravel(jnp.broadcast_to(prior.scale, value.shape)) ** -2.0)
        factor = jnp.linalg.cholesky(precision + slopes.T @ slopes)
        middle = -cho_solve((factor, True), slopes.T @ misfit + precision @ off)
        noise = jax.random.normal(key, off.shape, off.dtype)
        change = middle + solve_triangular(factor, noise, lower=True, trans=1)
        return value + change.reshape(value.shape)

    @jax.jit  # one compilation, where eager costs one an operation
    def fits(self, problem: Problem, x: Float[Array, "*event"]) -> Bool[Array, ""]:
        """Whether the misfits are affine in the value, and the noise does not depend on it."""
        function, value = _misfit_and_normaliser(problem, self.name, x), _value(problem, self.name)
        (misfit, constant), (slopes, of_constant) = function(value), jax.jacfwd(function)(value)
        step = jax.random.normal(jax.random.key(5), value.shape)
        moved, other_constant = function(value + step)
        along = misfit + jnp.tensordot(slopes, step, value.ndim)
        return (
            _close(moved, along, along)
            & (jnp.max(jnp.abs(of_constant)) <= _TOLERANCE)
            & (jnp.abs(other_constant - constant) <= _TOLERANCE)
        )


def conjugate(problem: Problem) -> tuple[Conjugate, ...]:
    """The parameters of a problem that can be drawn given all else.

    Found by the prior's kind, and by what the misfits do at values of the parameters and of x.

    Args:
        problem: with unknown parameters, and values for them.
    """
    if problem.parameters is None or not problem.is_gaussian:
        return ()
    found = []
    others = [problem.at(problem.draw_parameters(jax.random.key(k))) for k in (1, 2)]
    points = problem.prior.probe_points(2)
    for name in problem.parameter_names:
        block = _of_kind(name, problem.trace()[name])
        if block is None or _value(problem, name).size > _MOST_ENTRIES:
            continue
        if _has_children(problem, name):
            continue
        if not all(bool(block.fits(p, x)) for p, x in zip(others, points, strict=True)):
            continue
        if isinstance(block, Coefficients):
            block = Coefficients(name, bool(_is_separable(name, others[0], points)))
        found.append(block)
    return tuple(found)


def redraw(
    blocks: tuple[Conjugate, ...],
    key: PRNGKeyArray,
    problem: Problem,
    x: Float[Array, "*event"],
    widened: Any,
) -> Problem:
    """The problem with its conjugate parameters drawn anew.

    Args:
        blocks: of `conjugate`.
        key: random key.
        problem: at the present values.
        x: the denoised mean, or x_0 itself.
        widened: a function of the problem: by what its whitened entries are widened, (m,); None
            where x_0 is there.
    """
    for block, own in zip(blocks, jax.random.split(key, len(blocks)), strict=True):
        if widened is not None and not block.separable:
            continue
        key_off, key_draw = jax.random.split(own)
        misfit = problem.observe_gaussian(x).whitened
        if widened is not None:
            variances = widened(problem)
            share = variances / (1.0 + variances)
            noise = jax.random.normal(key_off, misfit.shape, misfit.dtype)
            misfit = misfit - share * misfit - jnp.sqrt(share) * noise
        value = block.draw(key_draw, problem, misfit, x)
        problem = _with_value(problem, block.name, value)
    return problem


def _of_kind(name: str, site: sites.Site) -> Conjugate | None:
    kind = type(sites.unwrap(site["fn"]))
    if kind in NoiseScale.priors:
        return NoiseScale(name, power=NoiseScale.priors[kind])
    return Coefficients(name) if kind in Coefficients.priors else None


def _value(problem: Problem, name: str) -> Array:
    return jnp.asarray(problem.trace()[name]["value"])


def _with_value(problem: Problem, name: str, value: Array) -> Problem:
    """The problem at another value of one parameter."""
    support = problem.trace()[name]["fn"].support
    parts = {**problem.unknowns.by_site, name: biject_to(support).inv(value)}
    flat = jnp.concatenate([jnp.ravel(part) for part in parts.values()])
    return problem.at(flat.astype(problem.unknowns.values.dtype))


def _misfit_and_normaliser(problem: Problem, name: str, x: Array):
    """The whitened misfit and the log normaliser as functions of a parameter's value."""

    def function(value: Array) -> tuple[Array, Array]:
        observation = _with_value(problem, name, value).observe_gaussian(x)
        return observation.whitened, observation.log_normaliser

    return function


def _has_children(problem: Problem, name: str) -> bool:
    """Whether the prior of another parameter depends on this one."""
    own = problem.unknowns.by_site

    def priors(part: Array) -> list[Array]:
        flat = jnp.concatenate([jnp.ravel({**own, name: part}[site]) for site in own])
        found = problem.at(flat).trace()
        held = problem.trace()
        terms = [{**found[site], "value": held[site]["value"]} for site in own if site != name]
        return [jnp.sum(sites.log_prob(term)) for term in terms]

    return depends_on_first(priors, own[name])


@partial(jax.jit, static_argnames="name")
def _is_separable(
    name: str, problem: Problem, points: Float[Array, " 2 *event"]
) -> Bool[Array, ""]:
    """Whether the slopes of the misfits in a parameter do not depend on x."""
    value = _value(problem, name)
    first, second = (jax.jacfwd(_misfit_and_normaliser(problem, name, x))(value)[0] for x in points)
    return _close(first, second, first)


def _close(a: Array, b: Array, scale: Array) -> Bool[Array, ""]:
    largest = jnp.max(jnp.abs(scale), initial=1e-30)
    return jnp.max(jnp.abs(a - b), initial=0.0) <= _TOLERANCE * largest
