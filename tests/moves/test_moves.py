"""Moves: they leave their target as it is, reach all of it, and find the size of their steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import InputError, moves
from smcdiff.moves.base import Experience, Frame

MOVES = [moves.HMC(), moves.MALA(), moves.RandomWalk()]
MEAN, SKEW = jnp.array([1.0, -2.0]), jnp.array([[0.3, 0.0], [0.4, 0.1]])
FRAME = Frame(jnp.zeros(2), jnp.array([2.0, 1.0]))


def log_density(position):
    """A Gaussian seen through a skewing map, bent: sinh of its first coordinate is normal."""
    offset = jnp.linalg.solve(SKEW, position - MEAN)
    bent = offset.at[0].set(jnp.sinh(offset[0]))
    return -0.5 * jnp.sum(bent**2) + jnp.log(jnp.cosh(offset[0]))


def exact(key, count):
    normal = jax.random.normal(key, (count, 2))
    offset = normal.at[:, 0].set(jnp.arcsinh(normal[:, 0]))
    return MEAN[None] + offset @ SKEW.T


def adapted(move, positions, rounds):
    """Particles moved in rounds, with the scale that they have learned."""

    @jax.jit
    def once(key, positions, log_size, acceptance):
        told = jax.vmap(lambda p: Experience.of(p, FRAME, log_size, acceptance))(positions)
        scale = jax.tree.map(lambda a: a.mean(0), told).scale(move, FRAME)
        keys = jax.random.split(key, len(positions))
        moved = jax.vmap(lambda key, p: move(key, log_density, p, scale))(keys, positions)
        return moved.position, scale.log_size, jnp.mean(moved.acceptance)

    log_size, acceptance = jnp.log(move.first_size(2)), jnp.asarray(move.target)
    for key in jax.random.split(jax.random.key(1), rounds):
        positions, log_size, acceptance = once(key, positions, log_size, acceptance)
    return positions, acceptance


@pytest.mark.parametrize("move", MOVES, ids=lambda move: type(move).__name__)
def test_leaves_its_target_as_it_is(move):
    start = exact(jax.random.key(0), 4000)
    moved, acceptance = adapted(move, start, 12)
    # Means and variances of 4,000 draws have standard errors of 0.016 and 0.03 in units of the sd.
    spread = np.std(start, axis=0)
    np.testing.assert_array_less(np.abs(np.mean(moved - start, axis=0)) / spread, 0.08)
    np.testing.assert_allclose(np.std(moved, axis=0) / spread, 1.0, atol=0.08)
    offset = np.linalg.solve(SKEW, np.asarray(moved - MEAN[None]).T)
    np.testing.assert_allclose(np.corrcoef(offset)[0, 1], 0.0, atol=0.07)
    # The steps are neither timid nor wild: they forget where they began.
    assert abs(acceptance - move.target) < 0.15
    again = np.linalg.solve(SKEW, np.asarray(start - MEAN[None]).T)
    assert np.all(
        np.abs([np.corrcoef(a, b)[0, 1] for a, b in zip(offset, again, strict=True)]) < 0.5
    )


@pytest.mark.slow
@pytest.mark.parametrize("move", MOVES, ids=lambda move: type(move).__name__)
def test_one_place_is_left(move):
    """Where all particles are copies of one, in a tail, the move still finds its way."""
    start = jnp.broadcast_to(jnp.array([1.6, -1.0]), (2000, 2))
    moved, _ = adapted(move, start, 60)
    np.testing.assert_allclose(np.mean(moved, axis=0), MEAN, atol=0.05)


def test_settings():
    with pytest.raises(InputError, match="RandomWalk: num_steps is 0"):
        moves.RandomWalk(0)
    with pytest.raises(InputError, match="HMC: num_integration_steps is 0"):
        moves.HMC(1, 0)
