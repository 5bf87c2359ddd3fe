"""The deterministic side of a diffusion: the probability-flow ODE, and fast solvers of it.

With s = sigma / alpha, u = log s, c^2 = alpha^2 + sigma^2 and a = 1 / sqrt(1 + s^2), the scaled
event w = x / c obeys (Song et al. 2021, eq. 13, in the variables in which it is smooth)

    dw/du = a^2 w - a m(c w, t),

for every schedule: variance preserving and exploding ones are the same curve. Followed upwards it
encodes an event as x_T, downwards it decodes; the integral of its divergence gives the log density.
The curve begins at the schedule's smallest noise level, so densities are those of the data with
noise of ``sigma(t_min) / alpha(t_min)`` added, in data units.

References:
    Song et al. (2021), Score-based generative modeling through SDEs, section 4.3.
    Grathwohl et al. (2019), FFJORD (Hutchinson's estimate of the divergence).
    Lu et al. (2022), DPM-Solver++, algorithm 2.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base._numbers import Scalar, Values
from smcdiff.base.module import Module, static
from smcdiff.diffusion.laws import Mixture
from smcdiff.diffusion.schedules import Grid, Schedule, UniformLogSNR
from smcdiff.errors import InputError


@runtime_checkable
class Diffusion(Protocol):
    """What is asked of a prior here; `smcdiff.priors.Prior` has it."""

    schedule: Schedule

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event."""
        ...

    def denoise(self, x: Float[Array, "*event"], t: Scalar) -> Float[Array, "*event"]:
        """The denoised mean m(x, t)."""
        ...

    def terminal(self) -> Mixture:
        """The law of x_T, on flat events."""
        ...


class LogDensity(NamedTuple):
    """A log density and the standard error of its estimate; zero where the trace was exact."""

    value: Float[Array, "*batch"]
    standard_error: Float[Array, "*batch"]


@runtime_checkable
class Solver(Protocol):
    """Anything that carries x_T to x_0 without random numbers."""

    def decode(
        self, prior: Diffusion, x: Float[Array, "*batch_event"]
    ) -> Float[Array, "*batch_event"]:
        """x_0 of x_T, over leading axes."""
        ...


class ProbabilityFlow(Module):
    """The ODE, solved to a tolerance by diffrax (Tsitouras' 5(4) pairs, adaptive steps).

    Attributes:
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step, for data of unit size.
        max_steps: most steps of one solution; an error where they do not suffice.
        exact_trace: largest event size d for which the divergence is exact, d vector-Jacobian
            products per evaluation; beyond, it is estimated by Hutchinson's probes.
        num_probes: random signs of the estimate, the same along the whole curve; at least 2, or
            there is no standard error.
    """

    rtol: float = static(default=1e-5)
    atol: float = static(default=1e-5)
    max_steps: int = static(default=4096)
    exact_trace: int = static(default=64)
    num_probes: int = static(default=8)

    def __post_init__(self):
        if self.num_probes < 2:
            raise InputError(
                f"ProbabilityFlow: num_probes is {self.num_probes}; a standard error needs 2"
            )

    def encode(self, prior: Diffusion, x: Float[Array, "*batch_event"]) -> Array:
        """x_T of x, over leading axes.

        Standard normal times sigma_T for the prior's own draws with noise of the smallest level
        added, ``x + sigma / alpha z`` at ``schedule.t_min``. A clean x is smoother than the curves
        are there, and its x_T less spread (`log_prob` likewise is the density of the noisy one).

        Raises:
            InputError: x does not end in the prior's event shape.
        """
        return self._solve_each(prior, x, upwards=True)

    def decode(self, prior: Diffusion, x: Float[Array, "*batch_event"]) -> Array:
        """x_0 of x_T, over leading axes.

        Raises:
            InputError: x does not end in the prior's event shape.
        """
        return self._solve_each(prior, x, upwards=False)

    def log_prob(
        self,
        prior: Diffusion,
        x: Float[Array, "*batch_event"],
        key: PRNGKeyArray | None = None,
    ) -> LogDensity:
        """Log density of events, in nat, over leading axes.

        Args:
            prior: any diffusion prior.
            x: events.
            key: of the probes; None is a fixed key, so that the density is a function of x.

        Returns:
            The log density and the standard error that the probes leave in it. The solver's
            tolerance and the network's own error come on top.

        Raises:
            InputError: x does not end in the prior's event shape.
        """
        size = math.prod(prior.event_shape)
        if size <= self.exact_trace:
            probes = jnp.eye(size)
        else:
            key = jax.random.key(0) if key is None else key
            probes = jax.random.rademacher(key, (self.num_probes, size), jnp.result_type(float))

        def one(x):
            start, end = _ends(prior)
            first = x / jnp.sqrt(1.0 + jnp.exp(2.0 * start))
            last, terms = self._integrate(prior, first, jnp.zeros(len(probes)), probes, start, end)
            scale = _scale(prior, prior.schedule.t_max)
            terminal = prior.terminal().log_prob(scale * last) + size * jnp.log(scale)
            base = terminal - 0.5 * size * jnp.log1p(jnp.exp(2.0 * start))
            if size <= self.exact_trace:
                return base + jnp.sum(terms), jnp.zeros(())
            return base + jnp.mean(terms), jnp.std(terms, ddof=1) / len(probes) ** 0.5

        return LogDensity(*_over_events(one, prior, x))

    def _solve_each(self, prior, x, upwards):
        start, end = _ends(prior)
        times = jnp.asarray([prior.schedule.t_min, prior.schedule.t_max])
        scales = _scale(prior, times)
        if not upwards:
            start, end, scales = end, start, scales[::-1]
        # The clean end is z = x_0 itself, not x at t_min: alpha there is not quite 1.
        clean = jnp.sqrt(1.0 + jnp.exp(2.0 * _ends(prior)[0]))
        into = 1.0 / clean if upwards else 1.0 / scales[0]
        out = scales[1] if upwards else clean

        def one(x):
            last, _ = self._integrate(prior, into * x, jnp.zeros(0), None, start, end)
            return out * last

        return _over_events(one, prior, x)

    def _integrate(self, prior, first, terms, probes, start, end):
        """The curve from one log noise level to another, with probe' (dv/dw) probe along it."""
        import diffrax

        def velocity(u, state, args):
            w, _ = state
            if probes is None:
                return _velocity(prior, w, u), terms
            value, pullback = jax.vjp(lambda w: _velocity(prior, w, u), w)
            products = jax.vmap(lambda probe: pullback(probe)[0] @ probe)(probes)
            return value, products

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(velocity), diffrax.Tsit5(), start, end, None, (first, terms),
            stepsize_controller=diffrax.PIDController(self.rtol, self.atol),
            max_steps=self.max_steps,
        )  # fmt: skip
        last, terms = jax.tree.map(lambda leaf: leaf[0], solution.ys)
        return last, terms


def _velocity(prior: Diffusion, w: Float[Array, " d"], u: Array) -> Array:
    """dw/du at log noise level u."""
    a = jax.lax.rsqrt(1.0 + jnp.exp(2.0 * u))
    t = prior.schedule.time(-2.0 * u)
    x = (_scale(prior, t) * w).reshape(prior.event_shape)
    return a**2 * w - a * jnp.ravel(prior.denoise(x, t))


def _ends(prior: Diffusion) -> tuple[Array, Array]:
    """The smallest and the largest log noise level, log(sigma / alpha)."""
    schedule = prior.schedule
    ends = [-0.5 * schedule.level(t).log_snr for t in (schedule.t_min, schedule.t_max)]
    return ends[0], ends[1]


_BEFORE, _AFTER = slice(None, -1), slice(1, None)
"""The levels that steps leave, and those that they reach."""


def _scale(prior: Diffusion, t: Values) -> Float[Array, "*steps"]:
    """sqrt(alpha^2 + sigma^2): 1 for variance-preserving schedules."""
    level = prior.schedule.level(t)
    return jnp.sqrt(level.alpha**2 + level.sigma**2)


def _over_events(function, prior: Diffusion, x: Array):
    """Maps a function of one flat event over leading axes; events come back in their shape."""
    x, shape = jnp.asarray(x), tuple(prior.event_shape)
    batch = x.shape[: x.ndim - len(shape)]
    if x.shape[len(batch) :] != shape:
        raise InputError(f"x has shape {x.shape}; it must end in the prior's event shape {shape}")
    size = math.prod(prior.event_shape)
    results = jax.vmap(function)(x.reshape(-1, size))
    return jax.tree.map(lambda r: r.reshape(batch if r.ndim == 1 else (*batch, *shape)), results)


class DPMSolver(Module):
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): about 20 evaluations suffice.

    A multistep method of second order in the data prediction: one network evaluation per step.

    Attributes:
        num_steps: steps, and network evaluations.
        grid: placement of the steps; None is uniform in log-SNR, as in the paper.
    """

    num_steps: int = static(default=20)
    grid: Grid | None = None

    def decode(self, prior: Diffusion, x: Float[Array, "*batch_event"]) -> Array:
        """x_0 of x_T, over leading axes.

        Raises:
            InputError: x does not end in the prior's event shape.
        """
        grid = UniformLogSNR() if self.grid is None else self.grid
        levels = grid(prior.schedule, self.num_steps)
        pairs = tuple(jax.tree.map(lambda a, s=s: a[s], levels) for s in (_BEFORE, _AFTER))

        def one(x):
            def step(carry, pair):
                x, before, h_before = carry
                t, s = pair
                denoised = jnp.ravel(prior.denoise(x.reshape(prior.event_shape), t.time))
                h = 0.5 * (s.log_snr - t.log_snr)
                # The first step has no step before it, and the last, infinite one is of first
                # order: there the correction is zero.
                correction = jnp.where(h_before > 0.0, 0.5 * h / h_before, 0.0)
                correction = jnp.where(jnp.isfinite(h), correction, 0.0)
                data = denoised + correction * (denoised - before)
                moved = s.sigma / t.sigma * x - s.alpha * jnp.expm1(-h) * data
                return (moved, denoised, h), None

            start = (x, jnp.zeros_like(x), jnp.zeros((), x.dtype))
            (x, _, _), _ = jax.lax.scan(step, start, pairs)
            return x

        return _over_events(one, prior, x)


def sample(
    prior: Diffusion,
    key: PRNGKeyArray,
    sample_shape: tuple[int, ...] = (),
    *,
    solver: Solver | None = None,
    temperature: float = 1.0,
) -> Float[Array, "*sample_event"]:
    """Draws: x_T at random, the rest without random numbers.

    Args:
        prior: any diffusion prior.
        key: random key.
        sample_shape: leading axes of the draws.
        solver: `DPMSolver` (default, 20 evaluations) or `ProbabilityFlow`.
        temperature: factor on x_T; below 1 the draws are more typical and less diverse (Song et al.
            2021, appendix D.4). Only at 1 are they draws of the prior.

    Returns:
        ``sample_shape + event_shape``.

    Raises:
        InputError: a temperature that is not positive.
    """
    if not temperature > 0.0:
        raise InputError(f"flow.sample: temperature is {temperature}; it must be positive")
    solver = DPMSolver() if solver is None else solver
    keys = jax.random.split(key, math.prod(sample_shape))
    start = jax.vmap(prior.terminal().sample)(keys)
    start = temperature * start.reshape(*sample_shape, *prior.event_shape)
    return solver.decode(prior, start)


def interpolate(
    prior: Diffusion,
    first: Float[Array, "*event"],
    second: Float[Array, "*event"],
    fractions: Float[Array, " n"],
    flow: ProbabilityFlow | None = None,
) -> Float[Array, " n *event"]:
    """Events between two events: their encodings, interpolated along the sphere, decoded.

    Args:
        prior: any diffusion prior whose x_T is nearly an isotropic normal.
        first: where the fraction is 0.
        second: where the fraction is 1.
        fractions: (n,), in [0, 1].
        flow: solver; None is the default one.

    Returns:
        (n, *event).
    """
    flow = ProbabilityFlow() if flow is None else flow
    ends = flow.encode(prior, jnp.stack([first, second]))
    flat = ends.reshape(2, -1)
    norms = jnp.linalg.norm(flat, axis=1)
    angle = jnp.arccos(jnp.clip(flat[0] @ flat[1] / (norms[0] * norms[1]), -1.0, 1.0))
    fractions = jnp.asarray(fractions)[:, None]
    # Spherical weights; their limit where the two encodings point the same way is linear.
    parallel = jnp.sin(angle) < 1e-4
    sine = jnp.where(parallel, 1.0, jnp.sin(angle))
    left = jnp.where(parallel, 1.0 - fractions, jnp.sin((1.0 - fractions) * angle) / sine)
    right = jnp.where(parallel, fractions, jnp.sin(fractions * angle) / sine)
    between = left * flat[:1] + right * flat[1:]
    return flow.decode(prior, between.reshape(-1, *prior.event_shape))
