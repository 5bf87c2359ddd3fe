"""Jumps are Gibbs or Metropolis-Hastings moves where the reverse kernel is exact, and not else.

Particles that follow the target, weighted, are moved once; the change of their moments must be zero
within its standard error for an exact kernel, and is not for a coarse Gaussian one.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import kernels, proposals
from tests.proposals.models import DENSE, MASK, MIXTURE, NOISE, reverse_model

COUNT, STEP, JUMP = 20_000, 4, 2
COARSE = pytest.param(kernels.DDIM(), False, marks=pytest.mark.slow)


def _change(before, after, weights):
    """Largest change of a first or second moment, in standard errors."""

    def moments(x):
        return np.concatenate([x, (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)], axis=1)

    difference = moments(np.asarray(after)) - moments(np.asarray(before))
    mean = weights @ difference
    error = np.sqrt(weights**2 @ (difference - mean) ** 2)
    return np.max(np.abs(mean) / np.maximum(error, 1e-9))


def _setting(matrix, kernel):
    model = reverse_model(MIXTURE, matrix, 2.0 * NOISE, 8)
    model = dataclasses.replace(model, kernel=kernel)
    marginal = MIXTURE.marginal(model.level(STEP))
    x = jax.vmap(marginal.sample)(jax.random.split(jax.random.key(0), COUNT))
    return model, x


BASES = [proposals.Bootstrap(), proposals.Twisted(), proposals.MomentMatched(), proposals.DDRM()]


@pytest.mark.parametrize("base", BASES, ids=lambda base: type(base).__name__)
@pytest.mark.parametrize(("kernel", "invariant"), [(kernels.Exact(), True), COARSE])
def test_rejuvenation_leaves_p_psi_as_it_is(base, kernel, invariant):
    model, x = _setting(DENSE, kernel)
    proposal = proposals.Rejuvenated(base, jump=JUMP)
    prepared, s = proposal.prepare(jax.random.key(1), model), model.level(STEP)

    @jax.jit
    @jax.vmap
    def move(key, x):
        place = proposal.place(model, prepared, x, s)
        return proposal.move(key, model, prepared, place, s).x, place.log_twist

    moved, log_twist = move(jax.random.split(jax.random.key(2), COUNT), x)
    change = _change(x, moved, np.asarray(jax.nn.softmax(log_twist), np.float64))
    assert np.mean(np.any(np.asarray(moved != x), axis=1)) > 0.1  # enough moves are accepted
    assert change < 4.5 if invariant else change > 10.0


# Where the entries are y: below both levels of the jump, between them, and above both.
@pytest.mark.parametrize("own", [(6, 3), (3, 1), (1, 6)])
@pytest.mark.parametrize(("kernel", "invariant"), [(kernels.Exact(), True), COARSE])
def test_repaint_leaves_the_law_given_the_path_as_it_is(kernel, invariant, own):
    """x_s from p_s, and the path from x_s upwards by the forward process: their joint law stays."""
    model, x = _setting(MASK, kernel)
    proposal = proposals.RePaint(jump=JUMP)
    path = proposal.prepare(jax.random.key(1), model)
    levels = jax.tree.map(lambda field: field[jnp.array(own)], model.levels)
    path = dataclasses.replace(path, own=levels)
    system = path.held.system

    @jax.jit
    @jax.vmap
    def move(key, x):
        key_path, key_move = jax.random.split(key)
        seen = path.values.at[STEP].set(system.directions(x))
        for step in range(STEP - 1, -1, -1):
            key_step, below = jax.random.fold_in(key_path, step), model.level(step + 1)
            noisier = kernels.renoise(key_step, seen[step + 1], below, model.level(step))
            seen = seen.at[step].set(noisier)
        observed = system.values * seen[jnp.array(own), jnp.arange(2)] / path.own.alpha
        held = dataclasses.replace(path.held, system=dataclasses.replace(system, observed=observed))
        mine = dataclasses.replace(path, held=held, values=seen)
        return proposal.gibbs(key_move, model, mine, x, model.level(STEP))

    moved = move(jax.random.split(jax.random.key(2), COUNT), x)
    held = system.directions.adjoint((jnp.array(own) >= STEP).astype(float)) != 0.0
    np.testing.assert_allclose(moved[:, held], x[:, held], rtol=1e-4, atol=1e-4)
    assert np.all(np.mean(np.asarray(moved != x), axis=0)[~np.asarray(held)] > 0.9)
    change = _change(x, moved, np.full(COUNT, 1.0 / COUNT))
    assert change < 4.5 if invariant else change > 10.0
