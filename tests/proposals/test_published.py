"""With weights off the samplers are the published ones: against plain NumPy transcriptions.

One fixed problem, the Gaussian noise handed to both: what our draws used is recovered from the key
by the same calls of `jax.random`. The denoiser is an arbitrary smooth map, its Jacobian by hand.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import InputError, kernels, priors, proposals, schedules
from smcdiff.problem import ReverseModel, read
from smcdiff.proposals.ddrm import coefficients
from smcdiff.twists._singular import SingularSystem

D, STEPS, NOISE = 4, 6, 0.3
WEIGHTS = np.asarray(0.4 * jax.random.normal(jax.random.key(1), (D, D)), np.float64)
DENSE = np.asarray(jax.random.normal(jax.random.key(2), (2, D)), np.float64)
MASK = np.eye(D)[[0, 2]]
OBSERVED = np.array([True, False, True, False])
Y = np.array([0.8, -0.5])


def _denoiser(x, t):
    return jnp.tanh(jnp.asarray(WEIGHTS, x.dtype) @ x) * (1.0 - t)


def _denoise(x, t):
    return np.tanh(WEIGHTS @ x) * (1.0 - t)


def _jacobian(x, t):
    return (1.0 - np.tanh(WEIGHTS @ x) ** 2)[:, None] * WEIGHTS * (1.0 - t)


def _model(matrix, y, noise=NOISE):
    x = numpyro.sample("x", priors.DiffusionPrior(_denoiser, schedules.Cosine(), (D,)))
    mean = jnp.asarray(matrix, x.dtype) @ x
    law = dist.Normal(mean, noise) if noise else dist.Delta(mean)
    numpyro.sample("y", law.to_event(1), obs=y)


def _reverse_model(matrix, noise=NOISE, weighted=False):
    model = partial(_model, noise=noise)
    problem = read(model, (matrix,), {"y": jnp.asarray(Y, jnp.float32)})
    levels = schedules.UniformLogSNR()(problem.prior.schedule, STEPS)
    return ReverseModel(problem, kernels.DDIM(), levels, weighted)


class Levels:
    """Alpha, sigma and t of every level in float64."""

    def __init__(self, model):
        self.alpha, self.sigma, self.t = (
            np.asarray(getattr(model.levels, name), np.float64)
            for name in ("alpha", "sigma", "time")
        )

    def ddpm(self, x, clean, n):
        """Ancestral mean and standard deviation of x_s, Ho et al. (2020), eq. 7."""
        a_t, a_s = self.alpha[n], self.alpha[n + 1]
        b_t, b_s = self.sigma[n] ** 2, self.sigma[n + 1] ** 2
        ratio = (a_t / a_s) ** 2  # the paper's alpha_t
        beta = b_t - ratio * b_s  # 1 - ratio, without its rounding in float32 near alpha = 1
        mean = a_s * beta / b_t * clean + (a_t / a_s) * b_s / b_t * x
        return mean, np.sqrt(b_s / b_t * beta)


def _normal(key):
    return np.asarray(jax.random.normal(key, (D,)), np.float64)


def _kernel_noise(key):
    """The noise of `Mixture.sample`."""
    return np.asarray(jax.random.normal(jax.random.split(key)[1], (1, D))[0], np.float64)


def _compare(proposal, matrix, step_by_hand, noise=NOISE):
    """Runs both from the same state and compares every step."""
    model = _reverse_model(matrix, noise)
    proposals.check_fits(proposal, model)
    levels = Levels(model)

    @jax.jit
    def begin():
        prepared = proposal.prepare(jax.random.key(5), model)
        return prepared, proposal.start(jax.random.key(6), model, prepared).x

    prepared, x = begin()

    @jax.jit
    def advance(prepared, key, x, step):
        t, s = model.level(step), model.level(step + 1)
        evaluation = proposal.evaluate(model, prepared, x, t)
        return proposal.propose(key, model, prepared, x, evaluation, t, s).x

    for n in range(STEPS):
        key = jax.random.fold_in(jax.random.key(7), n)
        theirs = step_by_hand(levels, key, np.asarray(x, np.float64), n)
        x = advance(prepared, key, x, np.int32(n))
        np.testing.assert_allclose(x, theirs, rtol=1e-5, atol=1e-5, err_msg=f"step {n}")
    return np.asarray(x)


def _replacement_step(levels, key, x, n, noise=NOISE):
    """Song et al. (2021), appendix I.2; with the noise of y in the known part."""
    key_known, key_rest = jax.random.split(key)
    mean, scale = levels.ddpm(x, _denoise(x, levels.t[n]), n)
    a_s, s_s = levels.alpha[n + 1], levels.sigma[n + 1]
    free = mean + scale * _kernel_noise(key_rest)
    normals = np.asarray(jax.random.normal(key_known, Y.shape), np.float64)
    free[OBSERVED] = a_s * Y + np.sqrt(s_s**2 + (a_s * noise) ** 2) * normals
    return free


@pytest.mark.parametrize("noise", [NOISE, 5.0, 0.0])  # 5 is beyond the prior's scale
def test_replacement(noise):
    _compare(proposals.Replacement(), MASK, partial(_replacement_step, noise=noise), noise)


@pytest.mark.parametrize(("repeats", "jump"), [(1, 1), (3, 1), (2, 2), (3, 2)])
def test_repaint(repeats, jump):
    """Lugmayr et al. (2022), algorithm 1, with the schedule of their appendix B."""

    def step(levels, key, x, n):
        key_step, key_jump = jax.random.split(key)
        x = _replacement_step(levels, key_step, x, n)
        index = STEPS - 2 - n  # their t: 0 is the least noisy level
        if index < 0 or index not in range(0, STEPS - jump, jump):
            return x
        for again in jax.random.split(key_jump, repeats - 1) if repeats > 1 else []:
            keys = jax.random.split(again, jump + 1)
            low, high = n + 1, n + 1 - jump
            ratio = levels.alpha[high] / levels.alpha[low]
            scale = np.sqrt(levels.sigma[high] ** 2 - (ratio * levels.sigma[low]) ** 2)
            x = ratio * x + scale * _normal(keys[0])
            for back in range(jump):
                x = _replacement_step(levels, keys[1 + back], x, high + back)
        return x

    _compare(proposals.RePaint(repeats, jump), MASK, step)


@pytest.mark.parametrize("noise", [NOISE, 0.0])
def test_dps(noise):
    """Chung et al. (2023), algorithm 1, in which the noise of y does not enter."""

    def step(levels, key, x, n):
        clean, jacobian = _denoise(x, levels.t[n]), _jacobian(x, levels.t[n])
        mean, scale = levels.ddpm(x, clean, n)
        misfit = Y - DENSE @ clean
        gradient = -jacobian.T @ DENSE.T @ misfit / np.linalg.norm(misfit)
        return mean + scale * _kernel_noise(key) - 0.7 * gradient

    _compare(proposals.DPS(0.7), DENSE, step, noise)


@pytest.mark.parametrize("noise", [NOISE, 0.0])
def test_pigdm(noise):
    """Song et al. (2023), algorithm 1, VP notation: alpha_bar = alpha^2.

    Without noise the guidance is their pseudo-inverse form, and the last step is ours.
    """

    def step(levels, key, x, n):
        clean, jacobian = _denoise(x, levels.t[n]), _jacobian(x, levels.t[n])
        if n == STEPS - 1 and not noise:
            return clean + np.linalg.pinv(DENSE) @ (Y - DENSE @ clean)
        bar_t, bar_s = levels.alpha[n] ** 2, levels.alpha[n + 1] ** 2
        eps = (x - np.sqrt(bar_t) * clean) / np.sqrt(1 - bar_t)
        c1 = np.sqrt((1 - bar_t / bar_s) * (1 - bar_s) / (1 - bar_t))
        c2 = np.sqrt(np.maximum(1 - bar_s - c1**2, 0.0))
        spread = 1 - bar_t
        if noise:
            inverse = np.linalg.inv(spread * DENSE @ DENSE.T + noise**2 * np.eye(2))
            guidance = spread * jacobian.T @ DENSE.T @ inverse @ (Y - DENSE @ clean)
        else:
            guidance = jacobian.T @ np.linalg.pinv(DENSE) @ (Y - DENSE @ clean)
        draw = c1 * _kernel_noise(key) + c2 * eps
        return np.sqrt(bar_s) * clean + draw + np.sqrt(bar_t) * guidance

    _compare(proposals.PiGDM(), DENSE, step, noise)


@pytest.mark.parametrize("noise", [NOISE, 0.0])
@pytest.mark.parametrize("eta", [0.85, 1.0])
@pytest.mark.parametrize("eta_b", [1.0, 0.4])
def test_ddrm(eta, eta_b, noise):
    """Kawar et al. (2022), eq. 8, one singular vector at a time, on x / alpha.

    Where neither level nor datum has noise, the datum is taken as it is, whatever eta_b.
    """

    left, values, right = np.linalg.svd(DENSE, full_matrices=False)

    def step(levels, key, x, n):
        sigma_t = levels.sigma[n] / levels.alpha[n]
        sigma_s = levels.sigma[n + 1] / levels.alpha[n + 1]
        clean, state, normals = _denoise(x, levels.t[n]), x / levels.alpha[n], _normal(key)
        rest = np.eye(D) - right.T @ right  # singular values of zero
        new = rest @ (clean + np.sqrt(1 - eta**2) * sigma_s / sigma_t * (state - clean))
        new += eta * sigma_s * rest @ normals
        for v, s, u in zip(right, values, left.T, strict=True):
            y_bar, sd = u @ Y / s, noise / s
            if sigma_s == sd == 0.0:
                mean, scale = y_bar, 0.0
            elif sigma_s < sd:
                mean = v @ clean + np.sqrt(1 - eta**2) * sigma_s * (y_bar - v @ clean) / sd
                scale = eta * sigma_s
            else:
                mean = (1 - eta_b) * (v @ clean) + eta_b * y_bar
                scale = np.sqrt(sigma_s**2 - (eta_b * sd) ** 2)
            new += v * (mean + scale * (v @ normals))
        return levels.alpha[n + 1] * new

    x = _compare(proposals.DDRM(eta, eta_b), DENSE, step, noise)
    if not noise:
        np.testing.assert_allclose(DENSE @ x, Y, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.85, 1.0])
@pytest.mark.parametrize("eta_b", [0.0, 0.5, 1.0, None])
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.5, 2.0, 1e6, np.inf])
def test_ddrm_keeps_the_marginal_of_every_level(eta, eta_b, noise):
    """q(x_s given x_0) = N(x_0, sigma_s^2) where m = x_0 and x_t ~ N(x_0, sigma_t^2)."""
    sigma_t = 1.3
    for sigma_s in (1.0, 0.5, 0.2, 0.01):
        law = coefficients(sigma_t, sigma_s, jnp.asarray(noise), eta, eta_b)
        spread = 0.0 if not np.isfinite(noise) else noise
        total = law.variance + (law.on_state * sigma_t) ** 2 + (law.on_data * spread) ** 2
        np.testing.assert_allclose(total, sigma_s**2, rtol=1e-5)


@pytest.mark.parametrize("eta_b", [0.0, 1.0, None])
def test_ddrm_noise_free_data_are_taken_as_they_are(eta_b):
    law = coefficients(1.0, 0.0, jnp.zeros(()), 0.85, eta_b)
    np.testing.assert_array_equal([law.on_state, law.on_data, law.variance], [0.0, 1.0, 0.0])


def test_zero_and_repeated_singular_values():
    matrix = np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [1.0, 1.0, 0, 0]])[[0, 1, 0]]

    def repeated(y):
        x = numpyro.sample("x", priors.Gaussian(jnp.zeros(D), 1.0))
        mean = jnp.asarray(matrix, x.dtype) @ x
        numpyro.sample("y", dist.Normal(mean, NOISE).to_event(1), obs=y)

    problem = read(repeated, (jnp.array([0.5, -0.2, 0.7]),))
    levels = schedules.UniformLogSNR()(problem.prior.schedule, STEPS)
    model = ReverseModel(problem, kernels.Exact(), levels)

    @jax.jit
    def found(points):
        system = SingularSystem.of(model)
        misfits = system.observed[None] - jax.vmap(system.project)(points)
        expected = jax.vmap(model.log_likelihood)(points)
        return system.values, system.log_constant - 0.5 * jnp.sum(misfits**2, axis=1), expected

    points = np.random.default_rng(0).normal(size=(3, D)).astype(np.float32)
    values, *densities = found(points)
    values = np.sort(values)[::-1]
    np.testing.assert_allclose(values, np.array([2**0.5, 1.0, 0.0]) / NOISE, atol=1e-4)
    np.testing.assert_allclose(*densities, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: proposals.DDRM(eta=1.2), "DDRM: eta is 1.2"),
        (lambda: proposals.DDRM(eta_b=-0.1), "DDRM: eta_b is -0.1"),
        (lambda: proposals.DPS(0.0), "DPS: scale is 0.0"),
        (lambda: proposals.RePaint(repeats=0), "RePaint: repeats is 0"),
        (lambda: proposals.RePaint(jump=0), "RePaint: jump is 0"),
        (lambda: proposals.Rejuvenated(moves=0), "Rejuvenated: moves is 0"),
        (lambda: proposals.Rejuvenated(every=0), "Rejuvenated: every is 0"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(InputError, match=message):
        make()


def _nonlinear(y):
    x = numpyro.sample("x", priors.Gaussian(jnp.zeros(D), 1.0))
    numpyro.sample("y", dist.Normal(x[:2] ** 2, NOISE).to_event(1), obs=y)


def _poisson(y):
    x = numpyro.sample("x", priors.Gaussian(jnp.zeros(D), 1.0))
    numpyro.sample("y", dist.Poisson(jnp.exp(x[:2])).to_event(1), obs=y)


def _checked(proposal, model, weighted=True):
    problem = read(model, (jnp.ones(2),))
    levels = schedules.UniformLogSNR()(problem.prior.schedule, STEPS)
    proposal.check(ReverseModel(problem, kernels.Exact(), levels, weighted))


@pytest.mark.parametrize(
    "name",
    [
        "DAPS",
        "DDRM",
        "FPS",
        "KrylovMomentMatched",
        "LanczosMomentMatched",
        "MCGDiff",
        "MomentMatched",
        "PiGDM",
    ],
)
def test_linear_methods_refuse_other_observations(name):
    with pytest.raises(InputError, match=f"{name}.* needs an observation that is linear"):
        _checked(getattr(proposals, name)(), _nonlinear)


def test_problems_that_do_not_fit():
    _checked(proposals.DPS(), _nonlinear)  # differentiable is enough
    with pytest.raises(InputError, match="not Normal or MultivariateNormal"):
        _checked(proposals.DPS(), _poisson)

    def dense(y):
        return _model(DENSE, y)

    def mask(y):
        return _model(MASK, y)

    with pytest.raises(InputError, match="eta = 0"):
        _checked(proposals.DDRM(eta=0.0), dense)
    _checked(proposals.DDRM(eta=0.0), dense, weighted=False)
    with pytest.raises(InputError, match="needs an observation of single entries"):
        _checked(proposals.RePaint(), dense)
    with pytest.raises(InputError, match="jump is 6; it must be below num_steps = 6"):
        _checked(proposals.RePaint(jump=6), mask)
    with pytest.raises(InputError, match="jump is 6"):
        _checked(proposals.Rejuvenated(jump=6), dense)
    with pytest.raises(InputError, match="SMCDiff weighs its particles by their path"):
        _checked(proposals.Rejuvenated(proposals.SMCDiff()), mask)
