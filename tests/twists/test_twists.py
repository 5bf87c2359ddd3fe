"""Every twist: its last value is the likelihood, and options out of range are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import InputError, proposals, twists
from tests.proposals.models import (
    DENSE,
    GAUSSIAN,
    MIXTURE,
    NOISE,
    noisy_log_likelihood,
    reverse_model,
)

LINEAR = {
    "Likelihood": twists.Likelihood(),
    "Widened": twists.Widened(),
    "MomentMatched": twists.MomentMatched(),
    "Krylov": twists.Krylov(floor=0.0),
    "Lanczos": twists.Lanczos(),
    "NoisedObservation": twists.NoisedObservation(),
    "PseudoInverse": twists.PseudoInverse(),
}


@pytest.mark.parametrize("twist", LINEAR.values(), ids=LINEAR)
def test_tends_to_the_likelihood_as_the_noise_goes(twist):
    """At the smallest noise of the grid x_0 is known to a ten-thousandth."""
    model = reverse_model(MIXTURE, DENSE, NOISE, 4)

    @jax.jit
    def both(x):
        prepared, t = twist.prepare(jax.random.key(0), model), model.level(3)
        found = twist.evaluate(model, prepared, t.alpha * x, t).log_twist
        return found, model.log_likelihood(x)

    np.testing.assert_allclose(*both(np.float32([0.3, 0.2, -0.5])), atol=0.1)


@pytest.mark.parametrize("name", ["MomentMatched", "Krylov", "Lanczos"])
def test_moment_matching_is_exact_for_a_gaussian(name):
    """log p(y given x_t) itself; Krylov's determinant is that of `Widened`, so differences."""
    model = reverse_model(GAUSSIAN, DENSE, NOISE, 6)
    twist, exact = LINEAR[name], noisy_log_likelihood(GAUSSIAN, DENSE, NOISE)
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)

    @jax.jit
    def both(x):
        prepared, t = twist.prepare(jax.random.key(0), model), model.level(2)
        found = jax.vmap(lambda x: twist.evaluate(model, prepared, x, t).log_twist)(x)
        return found, jax.vmap(lambda x: exact(x, t.time))(x)

    found, expected = both(x)
    if name == "Krylov":
        found, expected = found - found[0], expected - expected[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: twists.Krylov(size=0), "twists.Krylov: size is 0"),
        (lambda: twists.Krylov(floor=2.0), "twists.Krylov: floor is 2.0"),
        (lambda: twists.Lanczos(size=0), "twists.Lanczos: size is 0"),
        (lambda: twists.Likelihood(0.0), "temper is 0.0"),
        (lambda: proposals.MCGDiff(twist=twists.Widened()), "NoisedObservation"),
        (lambda: proposals.Conditioned(twist=twists.Widened()), "cannot be conditioned on"),
        (lambda: proposals.DDRM(twist=twists.MomentMatched()), "one of the denoised mean"),
        (lambda: proposals.DPS(twist=twists.Krylov()), "one of the denoised mean"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be(make, message):
    with pytest.raises(InputError, match=message):
        make()


COMBINATIONS = [
    proposals.Bootstrap(twist=twists.Widened()),
    proposals.Bootstrap(twist=twists.MomentMatched()),
    proposals.Twisted(twist=twists.MomentMatched()),
    proposals.Twisted(twist=twists.Krylov()),
    proposals.Twisted(twist=twists.NoisedObservation()),
    proposals.DDRM(twist=twists.Widened()),
    proposals.DAPS(twist=twists.Flat()),
    proposals.PiGDM(twist=twists.NoisedObservation()),
    proposals.DPS(0.1, twist=twists.PseudoInverse()),
    proposals.Conditioned(twist=twists.Lanczos()),
]


@pytest.mark.parametrize("proposal", COMBINATIONS, ids=repr)
def test_a_proposal_takes_any_twist_that_it_can_use(proposal):
    model = reverse_model(MIXTURE, DENSE, NOISE, 6)
    proposals.check_fits(proposal, model)

    @jax.jit
    def step(keys):
        prepared, t, s = proposal.prepare(keys[0], model), model.level(2), model.level(3)
        x = proposal.start(keys[1], model, prepared).x
        evaluation = proposal.evaluate(model, prepared, x, t)
        draw = proposal.propose(keys[2], model, prepared, x, evaluation, t, s)
        law = proposal.law(model, prepared, x, evaluation, t, s)
        return evaluation.log_twist, draw.log_ratio, law.log_ratio(draw.x)

    log_twist, log_ratio, of_law = step(jax.random.split(jax.random.key(0), 3))
    assert jnp.isfinite(log_twist) and jnp.isfinite(log_ratio)
    np.testing.assert_allclose(of_law, log_ratio, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_gradient_where_the_krylov_space_is_exhausted(rows):
    """As many directions as there are observations, and up to two that are none: no NaN."""
    matrix, y = np.eye(3, dtype=np.float32)[:rows], np.linspace(0.7, -0.6, rows, dtype=np.float32)
    model = reverse_model(MIXTURE, matrix, 0.4, 6, y=y)
    twist = twists.Krylov()

    @jax.jit
    def gradient(x):
        prepared = twist.prepare(jax.random.key(0), model)
        return jax.grad(lambda x: twist.evaluate(model, prepared, x, model.level(2)).log_twist)(x)

    assert np.all(np.isfinite(gradient(np.float32([0.3, -0.5, 1.0]))))
