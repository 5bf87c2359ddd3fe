"""`ParticleGibbs`: from a NumPyro model with a diffusion prior to the draws of Markov chains."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff._version import __version__
from smcdiff.base._progress import Progress, begin, progress_of
from smcdiff.diffusion.kernels import Kernel
from smcdiff.diffusion.schedules import Grid
from smcdiff.errors import InputError, SamplingError
from smcdiff.moves import Move
from smcdiff.moves._conjugate import conjugate
from smcdiff.problem import Problem, ReverseModel
from smcdiff.problem._arguments import check_concrete
from smcdiff.proposals import Bootstrap, Proposal, Twisted
from smcdiff.proposals._own_path import OwnPath, unwrapped
from smcdiff.proposals.choice import is_differentiable
from smcdiff.proposals.paths import OnPath
from smcdiff.results.draws import Draws
from smcdiff.sampler import _chains as chains
from smcdiff.sampler import _sweeps as sweeps
from smcdiff.sampler._conditional_diffusion import can_be_held, check_has_law
from smcdiff.sampler._faults import likelihood_fault
from smcdiff.sampler._sampler import Sampler, keys_of_chains
from smcdiff.sampler._settings import Settings, brief, flag, typed_key, whole_number
from smcdiff.smc import ConditionalFilter
from smcdiff.smc._chains import leaf_axes


class ParticleGibbs:
    """Samples the posterior of a NumPyro model by Markov chains over the whole reverse diffusion.

    A sweep runs a particle filter in which one particle is held to the path x_T, ..., x_0 of the
    sweep before, and takes a new path from it (conditional SMC with ancestor sampling). Whatever
    the number of particles, from two on, the chain leaves p(x_{0:T}) p(y given x_0) as it is: the
    posterior under the prior that the reverse kernel and its steps define, of a learned network
    too. So many sweeps of few particles do what one filter does with very many, and R-hat and the
    effective sample size of ArviZ tell whether they have. Unknown parameters are moved between the
    sweeps, given x_0.

    The more of the path a sweep renews, the faster a chain forgets its start: look at
    ``draws.print_summary()``, and take more particles where the share of x_T is next to nothing.

    Args:
        model: a NumPyro model with sites whose distributions are diffusion priors, and observed
            sites (or ``numpyro.factor``).
        proposal: a proposal of `smcdiff.proposals` with a ``law``: `Twisted`, `MomentMatched`,
            `LanczosMomentMatched`, `KrylovMomentMatched`, `Bootstrap` and others; None is that of
            `SMC` where it has one, else `Twisted`.
        num_particles: particles per chain, at least 2.
        num_steps: reverse diffusion steps.
        num_warmup: sweeps of each chain that are dropped, and in which the steps of the unknown
            parameters are adapted.
        num_samples: sweeps of each chain that are kept.
        num_chains: independent chains.
        ess_threshold: resample when the ESS falls below this fraction of the particles; 1 is
            always. Of paths in many dimensions more are renewed the less is resampled.
        batch_size: particles in the network at once, over all chains, at least one of each; None is
            all of them.
        progress_bar: as of `SMC`, in sweeps.
        kernel: reverse kernel; None takes the prior's own.
        grid: placement of the steps; None takes the proposal's own.
        linear: declare (True) or deny (False) that the observation is linear-Gaussian; None
            detects it.
        renoise: draw x_T, ..., x_1 anew before each sweep, given x_0, by the forward process. That
            is exact where the reverse kernel is ideal (`kernels.Exact`), and for a learned prior as
            good as its kernel: the chains forget their start much sooner, and aim at what the prior
            would be if its network made no error, as `SMC` does with `TwistedPath`.
        move: how unknown parameters are moved, see `smcdiff.moves`; None takes `moves.HMC()`, or
            `moves.RandomWalk()` where the likelihood has no gradient.

    References:
        C. Andrieu, A. Doucet and R. Holenstein (2010), Particle Markov chain Monte Carlo methods,
        J. R. Stat. Soc. B 72, 269.
        F. Lindsten, M. I. Jordan and T. B. Schoen (2014), Particle Gibbs with ancestor sampling,
        J. Mach. Learn. Res. 15, 2145.

    Raises:
        InputError: settings out of range.
    """

    def __init__(
        self,
        model: Callable,
        proposal: Proposal | None = None,
        *,
        num_particles: int,
        num_steps: int,
        num_warmup: int,
        num_samples: int,
        num_chains: int = 4,
        ess_threshold: float | Any = 0.5,  # what is given is checked
        batch_size: int | None = None,
        progress_bar: bool | Progress = True,
        kernel: Kernel | None = None,
        grid: Grid | None = None,
        linear: bool | None = None,
        renoise: bool | Any = False,  # what is given is checked
        move: Move | None = None,
    ):
        """See the class."""
        whole_number("num_particles", num_particles, 2, "ParticleGibbs")
        self.num_warmup = whole_number("num_warmup", num_warmup, 0, "ParticleGibbs")
        self.num_samples = whole_number("num_samples", num_samples, 1, "ParticleGibbs")
        if callable(ess_threshold):  # as `SMC` takes it
            raise InputError("ParticleGibbs: ess_threshold is a function; give a number in [0, 1]")
        self.renoise = flag("renoise", renoise, "ParticleGibbs")
        settings = Settings(
            proposal, num_particles, num_steps, num_chains, "systematic", ess_threshold, True,
            batch_size, kernel, grid, linear, False, None, move,
        )  # fmt: skip
        self._sampler = Sampler(model, settings, progress_bar)

    @property
    def settings(self) -> Settings:
        """The settings, checked."""
        return self._sampler.settings

    def run(
        self,
        key: PRNGKeyArray,
        *args: Any,
        init: Float[Array, "..."] | Draws | None = None,
        **kwargs: Any,
    ) -> Draws:
        """Runs the chains.

        Args:
            key: random key. The same key gives the same result.
            *args: arguments of the model.
            init: where the chains start: one event of the diffusion site (of several sites one
                flat event of all of them, in the order of the model), or (num_chains, *event) of
                them, each noised by the forward process; or the draws of a run with the same
                settings and data, which the chains then go on from (with another key, and as a rule
                without warmup); None starts each with a particle filter. The keyword is not passed
                to the model.
            **kwargs: keyword arguments of the model, the observations among them.

        Returns:
            The draws of all chains, after the warmup.

        Raises:
            InputError: a model, data or a start that cannot be used; before the run.
            SamplingError: no particle had a finite weight; the message names the chain.
        """
        begun, key, sampler = time.perf_counter(), typed_key(key, "ParticleGibbs"), self._sampler
        check_concrete(args, kwargs)
        problem = sampler.read(args, kwargs)
        problem.require_independent("ParticleGibbs")
        proposal, reason = self._choose(problem)
        model = sampler.assemble(problem, proposal)
        check_has_law(proposal, model)
        start = self._start(init, model)
        rows, state = self._sample(key, model, proposal, start)
        made = self._attributes(model, proposal, reason)
        seconds = {"seconds": time.perf_counter() - begun}
        return self._draws(rows, state, model, {**made, **seconds})

    def _choose(self, problem: Problem) -> tuple[Proposal, str]:
        """The proposal that the user named, or one whose law a path can be weighed by."""
        sampler = self._sampler
        proposal, reason = sampler.choose(problem)
        if isinstance(proposal, OnPath):
            return OwnPath(proposal), reason
        if sampler.settings.proposal is not None or can_be_held(proposal):
            return proposal, reason
        other = Twisted() if is_differentiable(problem.prior) else Bootstrap()
        return other, f"{reason}; a path cannot be held under {type(proposal).__name__}"

    def _start(self, init: Any, model: ReverseModel) -> sweeps.State | Array | None:
        """The starts of all chains: x_0, flat, or where others have ended."""
        if init is None:
            return None
        if isinstance(init, Draws):
            self._check_same(init, model)
            return init.state
        count, event, found = self.settings.num_chains, model.problem.event_shape, np.shape(init)
        if found not in (event, (count, *event)):
            raise InputError(
                f"ParticleGibbs: init has shape {found}; give one event of site"
                f" '{model.problem.site}', {event}, or one per chain, {(count, *event)}"
            )
        events = jnp.asarray(init, jnp.result_type(float))
        if not bool(jnp.all(jnp.isfinite(events))):
            raise InputError("ParticleGibbs: init has values that are not finite")
        return jnp.broadcast_to(events, (count, *event)).reshape(count, -1)

    def _check_same(self, init: Draws, model: ReverseModel) -> None:
        """Raises ``InputError`` where chains cannot go on from these draws."""
        wanted = (self.settings.num_chains, model.num_steps + 2, model.size)
        if init.state is None or init.state.path.shape != wanted:
            raise InputError(
                "ParticleGibbs: init holds draws of a run with other chains, steps or events; give"
                " an event, or draws of the same settings"
            )

    def _sample(
        self,
        key: PRNGKeyArray,
        model: ReverseModel,
        proposal: Proposal,
        start: sweeps.State | Array | None,
    ) -> tuple[sweeps.Row, sweeps.State]:
        """The rows of all sweeps after the warmup, and the last state."""
        sampler, settings = self._sampler, self.settings
        count, batch_size = settings.num_chains, settings.batch_size
        own = keys_of_chains(key.reshape(1), count)
        shared = (None,) * len(jax.tree.leaves(model))
        prepared = chains.prepare(
            own[:, 0], proposal, model, shared, sampler.move(model.problem),
            conjugate(model.problem),
        )  # fmt: skip
        if batch_size is not None:
            batch_size = max(1, batch_size // count)
        threshold = float(settings.ess_threshold)  # pyright: ignore[reportArgumentType] - no function
        axes = leaf_axes(prepared.diffusion, prepared.axes, count)
        kernel = ConditionalFilter(settings.num_particles, threshold, batch_size)
        plan = sweeps.Plan(kernel, axes, self.num_warmup, self.renoise)
        total = self.num_warmup + self.num_samples
        with progress_of(sampler.progress, "Sampling", "sweeps") as progress:
            begin(progress)
            rows, state = sweeps.run(
                plan, prepared.diffusion, own[:, 1], start, total,
                progress if sampler.progress else None,
            )  # fmt: skip
        failed = np.argwhere(np.asarray(rows.failed))
        if len(failed):
            sweep, chain = map(int, failed[0])
            why = _why(sweep, chain, model.problem.site, start is not None)
            fault = likelihood_fault(model.problem)
            raise SamplingError(why if fault is None else f"{why}; {fault}")
        return jax.tree.map(lambda a: a[self.num_warmup :], rows), state

    def _draws(
        self, rows: sweeps.Row, state: sweeps.State, model: ReverseModel, attrs: dict[str, Any]
    ) -> Draws:
        """What the user gets."""
        problem, by_chain = model.problem, jax.tree.map(lambda a: np.moveaxis(a, 0, 1), rows)
        shared = (None,) * len(jax.tree.leaves(model))
        computed, log_likelihood, _ = jax.device_get(
            chains.describe(by_chain.x, by_chain.parameters, model, shared, _DESCRIBED)
        )
        return Draws(
            samples={**problem.layout.split(by_chain.x, 2), **computed},
            pointwise_log_likelihood=log_likelihood,
            observed={name: np.asarray(y) for name, y in problem.observe().values.items()},
            renewed=by_chain.renewed,
            ess=by_chain.ess,
            acceptance=by_chain.acceptance,
            log_snr=np.asarray(model.levels.log_snr),
            dims=dict(problem.named_axes),
            attrs=attrs,
            state=state,
        )

    def _attributes(self, model: ReverseModel, proposal: Proposal, reason: str) -> dict[str, Any]:
        """How the run was made, in words."""
        settings, move = self.settings, self._sampler.moves_in_words(model.problem)
        return {
            "proposal": brief(unwrapped(proposal)),
            "proposal_reason": reason,
            **({} if move is None else {"move": move}),
            "kernel": brief(model.kernel),
            "grid": brief(settings.grid_for(model.problem.prior, proposal)),
            "num_particles": settings.num_particles,
            "num_steps": settings.num_steps,
            "num_warmup": self.num_warmup,
            "renoise": self.renoise,
            "ess_threshold": settings.ess_threshold,
            "smcdiff_version": __version__,
            "jax_version": jax.__version__,
        }


_DESCRIBED = 256
"""Draws that the model is asked about at once, per chain."""


def _why(sweep: int, chain: int, site: str, started: bool) -> str:
    """The message where a sweep has failed."""
    where = f"site '{site}': in sweep {sweep} of chain {chain}"
    if sweep == 0 and started:
        return (
            f"{where}, the first, the start given by init has no likelihood, or denoiser or"
            " likelihood are not finite there; give another one, or leave init out"
        )
    if sweep == 0:
        return (
            f"{where}, the first, which is a particle filter, no particle had a positive weight, or"
            " one was not a number; try more particles, another proposal, or a start (init)"
        )
    return (
        f"{where} a weight was not a number: denoiser, likelihood or a gradient of theirs is so for"
        ' some x, as jax.config.update("jax_debug_nans", True) shows'
    )
