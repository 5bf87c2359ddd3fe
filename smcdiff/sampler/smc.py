"""`SMC`: from a NumPyro model with a diffusion prior to a weighted posterior.

    model -> Problem (smcdiff.problem) -> ReverseModel and Proposal (smcdiff.proposals)
          -> particle filter (smcdiff.smc) -> Posterior (smcdiff.results.posterior)

Everything that can be wrong with the input is checked before the one compiled run starts.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff import problem as model_reader
from smcdiff._version import __version__
from smcdiff.base.progress import ProgressBar
from smcdiff.diffusion import schedules
from smcdiff.diffusion.kernels import AnalyticDPM, Kernel
from smcdiff.errors import InputError, SamplingError
from smcdiff.problem import Problem
from smcdiff.problem.arguments import split
from smcdiff.proposals import Proposal, ReverseModel, check_fits, choose
from smcdiff.results.posterior import Posterior
from smcdiff.sampler.compiled_run import Run, Settings, run, run_batch, stack
from smcdiff.smc import resampling as resamplers

_MOST = 2**31 - 1
"""Largest count: indices have 32 bits."""


def _check_key(key: Any) -> None:
    is_key = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    is_data = hasattr(key, "dtype") and key.dtype == jnp.uint32  # of jax.random.PRNGKey
    if not (is_key and key.shape == ()) and not (is_data and key.ndim == 1):
        raise InputError(f"SMC: the random key is {key!r}; pass jax.random.key(0), for example")


def _check_counts(num_particles, num_steps, num_chains, batch_size) -> None:
    """Raises ``InputError`` unless the numbers of `SMC` are whole, and at least 1."""
    positive = {"num_particles": num_particles, "num_chains": num_chains}
    if batch_size is not None:
        positive["batch_size"] = batch_size
    for name, value in {**positive, "num_steps": num_steps}.items():
        if not isinstance(value, (int, np.integer)) or value > _MOST:
            raise InputError(
                f"SMC: {name} is {value!r}; it must be a whole number, at most {_MOST}"
            )
    for name, value in positive.items():
        if value < 1:
            raise InputError(f"SMC: {name} is {value}; it must be at least 1")
    if num_steps < 2:
        raise InputError(f"SMC: num_steps is {num_steps}; a time grid needs at least 2 steps")


def _check_objects(proposal, kernel, grid, ess_threshold) -> None:
    """Raises ``InputError`` where a setting of `SMC` is not what it must be."""
    is_number = isinstance(ess_threshold, (int, float, np.number))
    if not callable(ess_threshold) and not (is_number and 0.0 <= ess_threshold <= 1.0):
        raise InputError(
            f"SMC: ess_threshold is {ess_threshold!r}; it must lie in [0, 1], or be a function"
            " of the log-SNR"
        )
    for name, value, method, example in (
        ("kernel", kernel, "check", "kernels.DDIM()"),
        ("grid", grid, "__call__", "schedules.Karras()"),
    ):
        if value is not None and (isinstance(value, type) or not hasattr(value, method)):
            raise InputError(f"SMC: {name} is {value!r}; pass an object, for example {example}")
    if proposal is not None and not isinstance(proposal, Proposal):
        raise InputError(
            f"SMC: proposal is {proposal!r}; pass an object of smcdiff.proposals, for example"
            " proposals.Twisted()"
        )


@contextmanager
def _naming_item(index: int):
    """Puts the item of a batch into the message of an error."""
    try:
        yield
    except (InputError, SamplingError) as error:
        raise type(error)(f"run_batch, item {index}: {error}") from error


@functools.cache
def _progress_bar(num_steps: int) -> ProgressBar:
    """One bar for all runs of a length: another object would be another compilation."""
    return ProgressBar(num_steps)


def _brief(part: Any) -> str:
    """How an object is written; of one that holds a network's weights, its type alone."""
    text = repr(part)
    return text if len(text) <= 300 else f"{type(part).__name__}(...)"


class SMC:
    """Samples the posterior of a NumPyro model whose one site has a diffusion prior.

    Args:
        model: a NumPyro model with one site whose distribution is a diffusion prior, and observed
            sites (or ``numpyro.factor``).
        proposal: a proposal of `smcdiff.proposals`; None chooses from the model's structure and
            says so in ``posterior.attrs``.
        num_particles: particles a chain.
        num_steps: reverse diffusion steps.
        num_chains: independent runs; their spread is the honest Monte-Carlo error.
        resampling: "systematic", "stratified", "multinomial", "residual", or a function
            ``(rng_key, weights, num_samples) -> indices`` (BlackJAX's protocol).
        ess_threshold: resample when the ESS falls below this fraction of the particles; 0 is never,
            1 is always. A function gives the fraction from the log-SNR of a level (an array), for
            example ``lambda log_snr: 0.5 * (log_snr > 0)``: where the twist is wrong at high noise,
            resampling on it costs founders, and not resampling there costs nothing.
        weighted: with False the weights are switched off: the heuristic sampler of the literature.
        batch_size: particles in the network at once, over all chains, at least one of each; None
            is all of them.
        progress_bar: show progress with the time left.
        kernel: reverse kernel; None takes the prior's own (exact for analytic priors, DDPM's
            ancestral step for learned ones, and `kernels.AnalyticDPM` where an exact observation
            needs a density at the last step and the prior knows its denoising error).
        grid: placement of the steps; None is uniform in log-SNR.
        linear: declare (True) or deny (False) that the observation is linear-Gaussian; None
            detects it.
        store_ancestors: keep the ancestor indices of every step, (num_chains, num_steps + 1,
            num_particles).

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
        num_chains: int = 1,
        resampling: str | Callable = "systematic",
        ess_threshold: float | Callable[[Array], Array] = 0.5,
        weighted: bool = True,
        batch_size: int | None = None,
        progress_bar: bool = True,
        kernel: Kernel | None = None,
        grid: schedules.Grid | None = None,
        linear: bool | None = None,
        store_ancestors: bool = False,
    ):
        """See the class."""
        _check_counts(num_particles, num_steps, num_chains, batch_size)
        num_particles, num_steps, num_chains = int(num_particles), int(num_steps), int(num_chains)
        _check_objects(proposal, kernel, grid, ess_threshold)
        self.model = model
        self.proposal = proposal
        self.num_steps = num_steps
        self.ess_threshold = ess_threshold
        self.progress_bar = progress_bar
        self.kernel = kernel
        self.grid = schedules.UniformLogSNR() if grid is None else grid
        self.linear = linear
        self.settings = Settings(
            num_particles,
            num_chains,
            resamplers.get(resampling),
            None if callable(ess_threshold) else float(ess_threshold),
            weighted,
            batch_size,
            store_ancestors,
            None,
        )

    def run(self, key: PRNGKeyArray, *args, **kwargs) -> Posterior:
        """Samples the posterior.

        Args:
            key: random key. The same key gives the same result.
            *args: arguments of the model.
            **kwargs: keyword arguments of the model, the observations among them. Arrays and
                Python floats may change between runs without compiling again.

        Returns:
            The weighted posterior.

        Raises:
            InputError: a model or data that cannot be used, before the run.
            SamplingError: no finite weight was left; the message names the step.
        """
        start = time.perf_counter()
        _check_key(key)
        problem = model_reader.read(self.model, args, kwargs, linear=self.linear)
        proposal, reason = self._choose(problem)
        model = self._assemble(problem, proposal)
        keys = jax.random.split(key, self.settings.num_chains)
        with self._progress() as progress:
            settings = self._settings(progress, model, proposal)
            done = jax.block_until_ready(
                run(keys, model, proposal, self._thresholds(model), settings)
            )
        seconds = time.perf_counter() - start
        return self._posterior(done, model, proposal, reason, seconds)

    def _choose(self, problem: Problem) -> tuple[Proposal, str]:
        """The proposal, and why it is this one."""
        return choose(problem) if self.proposal is None else (self.proposal, "named by the user")

    def _assemble(self, problem: Problem, proposal: Proposal) -> ReverseModel:
        """The reverse model, once the proposal is known to fit it."""
        prior = problem.prior
        kernel = self._kernel(problem)
        kernel.check(prior)
        if kernel.deterministic and self.settings.weighted:
            raise InputError(
                "SMC: the kernel has eta = 0, so its steps have no density to weigh; use eta > 0 or"
                " weighted=False"
            )
        times = self.grid(prior.schedule, self.num_steps)
        levels = schedules.levels(prior.schedule, times)
        model = ReverseModel(problem, kernel, levels, self.settings.weighted)
        check_fits(proposal, model)
        return model

    def _kernel(self, problem: Problem) -> Kernel:
        """The kernel that the user named, or one that suits the prior and the observation."""
        if self.kernel is not None:
            return self.kernel
        kernel = problem.prior.default_kernel()
        needs_density = problem.noise_free and self.settings.weighted
        known = getattr(problem.prior, "denoising_error", None) is not None
        return AnalyticDPM() if needs_density and kernel.ends_in_dirac and known else kernel

    def run_batch(self, key: PRNGKeyArray, batch: dict[str, Any], *args, **kwargs):
        """Samples the posteriors of a batch of observations in one compiled call.

        Args:
            key: random key.
            batch: keyword arguments of the model with a leading axis of B items, for example
                ``{"y": ys}``.
            *args: arguments that all items share.
            **kwargs: keyword arguments that all items share.

        Returns:
            A list of B posteriors.

        Raises:
            InputError: a model or data that cannot be used, in any of the items, before the run.
            SamplingError: no finite weight was left in one of the items.
        """
        start = time.perf_counter()
        _check_key(key)
        if not isinstance(batch, dict):
            raise InputError(
                f"run_batch: the batch is a {type(batch).__name__}; pass the arguments that differ"
                ' by name, for example {"y": ys}'
            )
        sizes = {name: np.shape(value)[:1] for name, value in batch.items()}
        if len(set(sizes.values())) != 1 or () in sizes.values() or (0,) in sizes.values():
            raise InputError(f"run_batch: leading axes {sizes}; all must be equal and at least 1")
        ((size,),) = set(sizes.values())
        arrays, static = split(args, kwargs)  # once, so that the items share them
        args, kwargs = static.rebuild(arrays)
        problems = []
        for index in range(size):
            item = {name: value[index] for name, value in batch.items()}
            with _naming_item(index):
                problem = model_reader.read(self.model, args, kwargs | item, linear=self.linear)
                problems.append(problem)
        proposal, reason = self._choose(problems[0])
        models = []
        for index, problem in enumerate(problems):
            with _naming_item(index):
                models.append(self._assemble(problem, proposal))
        stacked, mapped = stack(models)
        keys = jax.random.split(key, (size, self.settings.num_chains))
        with self._progress() as progress:
            settings = self._settings(progress, stacked, proposal)
            thresholds = self._thresholds(models[0])
            results = jax.block_until_ready(
                run_batch(keys, stacked, mapped, proposal, thresholds, settings)
            )
        seconds = time.perf_counter() - start
        posteriors = []
        for index, model in enumerate(models):
            done = jax.tree.map(lambda leaf, i=index: leaf[i], results)
            with _naming_item(index):
                posteriors.append(self._posterior(done, model, proposal, reason, seconds / size))
        return posteriors

    def _thresholds(self, model: ReverseModel) -> Float[Array, " steps"] | None:
        """A threshold for each move, by the level that is left; None where one number serves."""
        if not callable(self.ess_threshold):
            return None
        log_snr = model.levels.log_snr[:-1]
        fractions = jnp.broadcast_to(self.ess_threshold(log_snr), log_snr.shape)
        if not bool(jnp.all((fractions >= 0.0) & (fractions <= 1.0))):
            raise InputError("SMC: ess_threshold gives values outside [0, 1]")
        return jnp.concatenate([fractions[:1], fractions]).astype(log_snr.dtype)

    def _settings(self, progress, model: ReverseModel, proposal: Proposal) -> Settings:
        """The settings of one run."""
        return dataclasses.replace(self.settings, progress=progress)

    def _progress(self):
        """A context whose value is the callback that the engine calls, or None."""
        return _progress_bar(self.num_steps) if self.progress_bar else nullcontext()

    def _posterior(
        self,
        done: Run,
        model: ReverseModel,
        proposal: Proposal,
        reason: str,
        seconds: float,
    ) -> Posterior:
        """The result for the user, on the host."""
        problem, settings, result = model.problem, self.settings, done.result
        self._check_finished(np.asarray(result.failed_step), model)
        chains, particles = result.log_weights.shape
        samples = np.asarray(result.particles).reshape(chains, particles, *problem.event_shape)
        if not np.all(np.isfinite(samples)):
            raise SamplingError(
                f"site '{problem.site}': samples are not finite although their weights are;"
                " the denoiser returned NaN or infinity"
            )
        computed = {name: np.asarray(value) for name, value in done.computed.items()}
        pointwise = {name: np.asarray(value) for name, value in done.log_likelihood.items()}
        return Posterior(
            samples={problem.site: samples, **computed},
            log_weights=np.asarray(result.log_weights),
            log_evidence=np.asarray(result.log_evidence),
            ess=np.asarray(result.ess),
            ancestors=None if result.ancestors is None else np.asarray(result.ancestors),
            founders=np.asarray(result.founders),
            num_founders=np.asarray(result.num_founders),
            log_evidence_increments=np.asarray(result.log_evidence_increments),
            resampled=np.asarray(result.resampled),
            log_snr=np.asarray(model.levels.log_snr),
            pointwise_log_likelihood=pointwise,
            observed={name: np.asarray(v) for name, v in problem.observations().items()},
            weighted=settings.weighted,
            attrs={
                "proposal": _brief(proposal),
                "proposal_reason": reason,
                "kernel": _brief(model.kernel),
                "grid": _brief(self.grid),
                "num_steps": self.num_steps,
                "ess_threshold": "by log-SNR"
                if settings.ess_threshold is None
                else settings.ess_threshold,
                "resampling": getattr(settings.resampling, "__name__", repr(settings.resampling)),
                "seconds": seconds,
                "smcdiff_version": __version__,
                "jax_version": jax.__version__,
            },
        )

    def _check_finished(self, failed_step: np.ndarray, model: ReverseModel) -> None:
        if np.all(failed_step < 0):
            return
        step = int(failed_step[failed_step >= 0].min())
        level = jax.tree.map(float, model.level(step))
        raise SamplingError(
            f"site '{model.problem.site}': at step {step} of {self.num_steps} (noise level sigma ="
            f" {level.sigma:.3g}) no particle of {int(np.sum(failed_step >= 0))} of"
            f" {failed_step.size} chains had a finite weight, or one had NaN; the observation is"
            " far outside the prior, the noise too small, or the likelihood or the denoiser NaN for"
            " some x: try more particles, a larger noise, or another proposal"
        )
