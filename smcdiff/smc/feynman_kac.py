"""Feynman-Kac models: what a particle filter runs on.

A Feynman-Kac model is a Markov chain X_0, X_1, ..., X_T with initial law M_0 and kernels
M_t(x_{t-1}, dx_t), and potentials G_0(x_0), G_t(x_{t-1}, x_t) >= 0. It defines the path measures

    Q_t(dx_{0:t}) = M_0(dx_0) G_0(x_0) prod_{s=1}^{t} M_s(x_{s-1}, dx_s) G_s(x_{s-1}, x_s) / L_t,

and L_T, the evidence, is what the running product of the filter's mean weights estimates without
bias. A bootstrap filter takes M_t = the transition and G_t = the likelihood of y_t; a guided filter
takes M_t = a proposal and G_t = transition times likelihood over proposal.

A model describes ONE particle (any pytree of arrays) and the filter maps over particles, so that a
model never sees how many there are or how they are batched. Work that a move and its weight share
is done in the move, and the particle carries what the weight needs of it.

A model may learn from its particles how to move: where it has a method ``statistics(particle)``,
the filter averages what that returns over the weighted particles of a chain before each step, and
``step`` takes these means as a fourth argument. The filter stays consistent as the number of
particles grows (Beskos, Jasra, Kantas and Thiery 2016), though its evidence is no longer unbiased.

References:
    P. Del Moral (2004), Feynman-Kac Formulae, Springer, ch. 2.
    N. Chopin and O. Papaspiliopoulos (2020), An Introduction to Sequential Monte Carlo, Springer,
    ch. 5.
    A. Beskos, A. Jasra, N. Kantas and A. Thiery (2016), On the convergence of adaptive sequential
    Monte Carlo methods, Ann. Appl. Probab. 26, 1111.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from smcdiff.errors import InputError


@runtime_checkable
class FeynmanKac(Protocol):
    """A Feynman-Kac model on one particle; nothing needs to inherit from this class.

    ``t`` is an int32 scalar that is the same for all particles and chains: ``lax.cond`` on it stays
    a branch. Make the model a pytree whose leaves are its data (a ``NamedTuple`` or a
    `smcdiff.Module`); then a compiled filter takes new data without compiling again.
    """

    def init(self, key: PRNGKeyArray) -> PyTree:
        """Draws a particle from M_0."""
        ...

    def step(self, key: PRNGKeyArray, t: Int[Array, ""], prev: PyTree) -> PyTree:
        """Draws a particle from M_t(prev, .), t >= 1."""
        ...

    def log_potential(
        self, t: Int[Array, ""], prev: PyTree | None, particle: PyTree
    ) -> Float[Array, ""]:
        """The log potential log G_t(prev, particle); ``prev`` is None at t = 0."""
        ...


def draw(model: FeynmanKac, key: PRNGKeyArray) -> tuple[PyTree, Any]:
    """One particle of step 0, and what the model says is its log potential."""
    particle = model.init(key)
    return particle, model.log_potential(jnp.int32(0), None, particle)


def move(
    model: FeynmanKac, key: PRNGKeyArray, t: Int[Array, ""], prev: PyTree, *means: PyTree
) -> tuple[PyTree, Any]:
    """One particle moved to step ``t``, and what the model says is its log potential.

    ``means`` is empty, or holds those of the model's statistics.
    """
    particle = model.step(key, t, prev, *means)
    return particle, model.log_potential(t, prev, particle)


def learns(model: Any) -> bool:
    """Whether a model takes means over its particles; see the module."""
    return hasattr(model, "statistics")


def check(model: Any, key: PRNGKeyArray) -> jnp.dtype:
    """Checks by abstract evaluation that a model fits the protocol.

    Args:
        model: the Feynman-Kac model.
        key: a random key of the kind the filter will use.

    Returns:
        The floating-point type of the log weights.

    Raises:
        InputError: a method is missing, a log weight is not a scalar, or a step changes the
            structure, the shapes or the types of a particle.
    """
    name = type(model).__name__
    missing = [part for part in ("init", "step", "log_potential") if not hasattr(model, part)]
    if missing:
        raise InputError(
            f"particle_filter: {name} has no {' or '.join(missing)}; define init(key),"
            " step(key, t, prev) and log_potential(t, prev, particle)"
        )

    def later_weight(key, t, prev):
        means = (model.statistics(prev),) if learns(model) else ()
        particle = model.step(key, t, prev, *means)
        _check_same(name, prev, particle)  # before a potential that cannot take it
        return model.log_potential(t, prev, particle)

    first, first_weight = jax.eval_shape(lambda k: draw(model, k), key)
    t = jax.ShapeDtypeStruct((), jnp.int32)
    weight = jax.eval_shape(later_weight, key, t, first)
    for where, value in (("t = 0", first_weight), ("t >= 1", weight)):
        if getattr(value, "shape", None) != ():
            raise InputError(
                f"particle_filter: the log weight of {name} at {where} has shape"
                f" {getattr(value, 'shape', None)}; return a scalar for one particle"
            )
    dtype = jnp.result_type(first_weight, weight)
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)


def _check_same(name: str, first: PyTree, later: PyTree) -> None:
    """Raises unless both are trees of arrays with equal structure, shapes and types."""
    if jax.tree.structure(first) != jax.tree.structure(later):
        raise InputError(
            f"particle_filter: {name} starts with particles {jax.tree.structure(first)} and steps"
            f" to {jax.tree.structure(later)}; return the same structure from both"
        )
    leaves = zip(jax.tree.leaves_with_path(first), jax.tree.leaves(later), strict=True)
    for (path, a), b in leaves:
        b = jax.typeof(b)
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            where = jax.tree_util.keystr(path) or "particle"
            raise InputError(
                f"particle_filter: {name} starts with {where} of shape {a.shape}, type {a.dtype},"
                f" and steps to shape {b.shape}, type {b.dtype}; return the same from both"
            )
