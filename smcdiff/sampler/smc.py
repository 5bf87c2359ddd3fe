"""`SMC`: from a NumPyro model with a diffusion prior to a weighted posterior.

    model -> Problem (smcdiff.problem) -> ReverseModel and Proposal (smcdiff.proposals)
          -> particle filter (smcdiff.smc) -> Posterior (smcdiff.results)

Everything that can be wrong with the input is checked before the one compiled run starts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from smcdiff.diffusion.kernels import Kernel
from smcdiff.diffusion.schedules import Grid
from smcdiff.moves import Move
from smcdiff.problem._arguments import check_concrete
from smcdiff.proposals import Proposal
from smcdiff.results._diagnosis import warn_if_degenerate
from smcdiff.results.posterior import Posterior
from smcdiff.sampler._catalogue import Catalogue
from smcdiff.sampler._outcome import Provenance, to_posterior
from smcdiff.sampler._sampler import Progress, Sampler
from smcdiff.sampler._settings import Settings, ThresholdOfLevel, typed_key
from smcdiff.smc import Checkpoint


class SMC:
    """Samples the posterior of a NumPyro model in which sites have diffusion priors.

    Several such sites, and sites in plates, are independent and are sampled together; other
    continuous latent sites are unknown parameters, and are sampled with them.

    Args:
        model: a NumPyro model with sites whose distributions are diffusion priors, and observed
            sites (or ``numpyro.factor``).
        proposal: a proposal of `smcdiff.proposals`; None chooses from the model's structure and
            says so in ``posterior.attrs``.
        num_particles: particles per chain.
        num_steps: reverse diffusion steps.
        num_chains: independent runs; their spread is the honest Monte-Carlo error.
        resampling: "systematic", "stratified", "multinomial", "residual", or a function
            ``(rng_key, weights, num_samples) -> indices`` (BlackJAX's protocol).
        ess_threshold: resample when the ESS falls below this fraction of the particles; 0 is never,
            1 is always. A function gives the fraction from the log-SNR of a level (an array), for
            example ``lambda log_snr: 0.5 * (log_snr > 0)``: where the twist is wrong at high noise,
            resampling on it costs founders, and not resampling there costs nothing.
        weighted: with False the weights are switched off: the heuristic sampler of the literature.
        batch_size: particles in the network at once per device, over all chains, at least one of
            each; None is all of them.
        progress_bar: show progress with the time left; or a function ``progress(step, num_steps,
            info)`` that is called on the host about five times a second, and ends the run if it
            raises. The arrays of ``info``, ess, num_founders and log_evidence, have one entry per
            chain.
        kernel: reverse kernel; None takes the prior's own (exact for analytic priors, DDPM's
            ancestral step for learned ones, and `kernels.AnalyticDPM` where an exact observation
            needs a density at the last step and the prior knows its denoising error).
        grid: placement of the steps; None takes the proposal's own: uniform in log-SNR, but of
            `proposals.TwistedPath` with weights most steps where the prior decides.
        linear: declare (True) or deny (False) that the observation is linear-Gaussian; None
            detects it.
        store_ancestors: keep the ancestor indices of every step, (num_chains, num_steps + 1,
            num_particles).
        mesh: devices, with axes "chains" and "particles" or one of them; None takes all local
            devices, where there are several. See the page on devices.
        move: how unknown parameters, the continuous latent sites beside the diffusion site, are
            moved after each reverse step, see `smcdiff.moves`; None takes `moves.HMC()`, or
            `moves.RandomWalk()` where the likelihood has no gradient. Those whose law given all
            else is known in closed form are drawn from it as well: see docs/unknown-parameters.md.

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
        ess_threshold: float | ThresholdOfLevel = 0.5,
        weighted: bool = True,
        batch_size: int | None = None,
        progress_bar: bool | Progress = True,
        kernel: Kernel | None = None,
        grid: Grid | None = None,
        linear: bool | None = None,
        store_ancestors: bool = False,
        mesh: Mesh | None = None,
        move: Move | None = None,
    ):
        """See the class."""
        settings = Settings(
            proposal, num_particles, num_steps, num_chains, resampling, ess_threshold, weighted,
            batch_size, kernel, grid, linear, store_ancestors, mesh, move,
        )  # fmt: skip
        self._sampler = Sampler(model, settings, progress_bar)

    @property
    def settings(self) -> Settings:
        """The settings, checked."""
        return self._sampler.settings

    def __getattr__(self, name: str) -> Any:
        if name in ("print_summary", "get_samples", "summary"):
            raise AttributeError(
                f"SMC has no {name}: run returns the posterior, so posterior = smc.run(key, ...)"
                f" and posterior.{name}()"
            )
        raise AttributeError(f"'SMC' object has no attribute '{name}'")

    def run(
        self,
        key: PRNGKeyArray,
        *args: Any,
        checkpoint: str | os.PathLike | Checkpoint | None = None,
        **kwargs: Any,
    ) -> Posterior:
        """Samples the posterior.

        Args:
            key: random key. The same key gives the same result.
            *args: arguments of the model.
            checkpoint: a folder in which the run keeps its state; the same call goes on from there
                after it was killed, to the same bits. A `smcdiff.smc.Checkpoint` says how often.
            **kwargs: keyword arguments of the model, the observations among them. Arrays and
                Python floats may change between runs without compiling again.

        Returns:
            The weighted posterior.

        Raises:
            InputError: a model or data that cannot be used, or a checkpoint of another run; before
                the run.
            SamplingError: no finite weight was left; the message names the step.
        """
        start = time.perf_counter()
        key, sampler = typed_key(key), self._sampler
        check_concrete(args, kwargs)
        problem = sampler.read(args, kwargs)
        proposal, reason = sampler.choose(problem)
        model = sampler.assemble(problem, proposal)
        axes = (None,) * len(jax.tree.leaves(model))
        keeper = sampler.checkpoint(checkpoint, model, proposal)
        outcome = sampler.sample(key, model, axes, proposal, 1, keeper)
        seconds = time.perf_counter() - start
        made = Provenance(proposal, reason, sampler.moves_in_words(problem), seconds)
        posterior = to_posterior(outcome, model, self.settings, made)
        warn_if_degenerate(posterior)
        return posterior

    def run_batch(
        self,
        key: PRNGKeyArray,
        batch: dict[str, Any],
        *args: Any,
        output: str | os.PathLike | None = None,
        shard: tuple[int, int] | None = None,
        items_per_batch: int | None = None,
        **kwargs: Any,
    ) -> Sequence[Posterior] | Sequence[Path]:
        """Samples the posteriors of many observations; see `smcdiff.sampler._catalogue`.

        Item i has the random key ``jax.random.fold_in(key, i)``: whichever other items are run
        beside it, its result is that of `run` with this key, up to rounding.

        Args:
            key: random key.
            batch: keyword arguments of the model with a leading axis of items, for example
                ``{"y": ys}``. With ``output`` anything that has a shape and is indexed by slices
                will do, a memory-mapped array or a data set of h5py or zarr, larger than memory.
            *args: arguments that all items share.
            output: a folder for one file per item, ``item-000123.nc``; items whose file is there
                already are passed over, so that a run that was killed goes on.
            shard: (i, n) runs the i-th, from 0, of n parts of the items, as a job of an array does.
            items_per_batch: items that run side by side in one compiled call; None is all of them
                without ``output``, and 16 with it.
            **kwargs: keyword arguments that all items share.

        Returns:
            The posteriors, or with ``output`` the files, in the order of the items.

        Raises:
            InputError: a model or data that cannot be used; names the item.
            SamplingError: no finite weight was left in one of the items.
        """
        key = typed_key(key)
        check_concrete(args, kwargs)
        catalogue = Catalogue(self._sampler, key, batch, args, kwargs, shard, items_per_batch)
        return catalogue.posteriors() if output is None else catalogue.write(Path(output))
