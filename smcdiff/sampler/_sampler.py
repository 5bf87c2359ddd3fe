"""What happens between a problem and the outcome of its chains; `SMC` and `Catalogue` share it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Key

from smcdiff._version import __version__
from smcdiff.base._callbacks import own_exceptions
from smcdiff.base._progress import Progress, begin, progress_of
from smcdiff.diffusion.kernels import AnalyticDPM, Kernel
from smcdiff.errors import InputError
from smcdiff.moves import HMC, Move, RandomWalk
from smcdiff.moves._conjugate import conjugate
from smcdiff.problem import Problem, ReverseModel, read
from smcdiff.problem._arguments import check_model
from smcdiff.problem._parameter_checks import has_slope
from smcdiff.proposals import Proposal, check_fits, choose
from smcdiff.proposals._ahead import TwistedAhead
from smcdiff.sampler import _chains as chains
from smcdiff.sampler._outcome import Outcome
from smcdiff.sampler._settings import Settings, brief
from smcdiff.smc import Checkpoint, Hooks, run_in_segments


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A model and the settings of its runs.

    Attributes:
        model: the NumPyro model.
        settings: of the runs.
        progress: whether to show progress, or what to call; see `SMC`.

    Raises:
        InputError: the model is none.
    """

    model: Callable
    settings: Settings
    progress: bool | Progress

    def __post_init__(self):
        check_model(self.model)

    def read(self, args: tuple, kwargs: dict[str, Any]) -> Problem:
        """The problem that the model makes of its arguments."""
        return read(self.model, args, kwargs, linear=self.settings.linear)

    def choose(self, problem: Problem) -> tuple[Proposal, str]:
        """The proposal, and why it is this one."""
        if self.settings.proposal is None:
            return choose(problem)
        return self.settings.proposal, "named by the user"

    def assemble(self, problem: Problem, proposal: Proposal) -> ReverseModel:
        """The reverse model, once the proposal is known to fit it."""
        settings, kernel = self.settings, self._kernel(problem)
        kernel.check(problem.prior)
        if kernel.deterministic and settings.weighted:
            raise InputError(
                "SMC: the kernel has eta = 0, so its steps have no density to weigh; use eta > 0 or"
                " weighted=False"
            )
        grid = settings.grid_for(problem.prior, proposal)
        levels = grid(problem.prior.schedule, settings.num_steps)
        before = tuple(self.assemble(stage, TwistedAhead()) for stage in problem.before)
        model = ReverseModel(problem, kernel, levels, settings.weighted, before=before)
        check_fits(proposal, model)
        return model

    def _kernel(self, problem: Problem) -> Kernel:
        """The kernel that the user named, or one that suits the prior and the observation."""
        if self.settings.kernel is not None:
            return self.settings.kernel
        kernel = problem.prior.default_kernel()
        needs_density = problem.is_noise_free and self.settings.weighted
        known = problem.prior.denoising_error is not None
        return AnalyticDPM() if needs_density and kernel.ends_in_dirac and known else kernel

    @own_exceptions()
    def sample(
        self,
        keys: Key[Array, " *items"],
        model: ReverseModel,
        model_axes: chains.Axes,
        proposal: Proposal,
        num_items: int,
        checkpoint: Checkpoint | None = None,
    ) -> Outcome:
        """Runs the filter.

        Args:
            keys: one random key, or (num_items,) of them.
            model: the reverse model; leaves in which the items differ have a leading axis of
                chains, those of an item one after the other.
            model_axes: of its leaves.
            proposal: the sampler.
            num_items: problems that run side by side, each with its own chains.
            checkpoint: where the state is kept.

        Returns:
            The outcome, with num_items x num_chains chains.
        """
        own = keys_of_chains(keys.reshape(num_items), self.settings.num_chains)
        problem = chains.first_of(model, model_axes).problem
        prepared = chains.prepare(
            own[:, 0], proposal, model, model_axes, self.move(problem), conjugate(problem)
        )
        particles = self.settings.filter(model.all_levels, num_items)
        with progress_of(self.progress) as progress:
            begin(progress)
            # Without progress there is no cause to stop between steps.
            called = _in_reverse_steps(progress) if self.progress else None
            result = run_in_segments(
                particles, own[:, 1], prepared.diffusion, prepared.diffusion.num_steps,
                chain_axes=prepared.axes, hooks=Hooks(called, None, checkpoint),
            )  # fmt: skip
        states, given = prepared.diffusion.ends(result.particles)
        result = result._replace(particles=states)
        batch_size = self.settings.batch_size
        if batch_size is not None:
            batch_size = max(1, batch_size // len(own))
        described = chains.describe(states[-1], given, model, model_axes, batch_size)
        # Else a run without progress would be timed to where it was handed to the device.
        return jax.block_until_ready(Outcome(result, *described))

    def move(self, problem: Problem) -> Move | None:
        """What moves the unknown parameters: what the user named, or one that suits them."""
        if problem.parameters is None:
            return None
        if self.settings.move is not None:
            return self.settings.move
        return HMC() if has_slope(problem) else RandomWalk()

    def moves_in_words(self, problem: Problem) -> str | None:
        """How the unknown parameters are moved; None where there are none."""
        move = self.move(problem)
        if move is None:
            return None
        drawn = [block.name for block in conjugate(problem)]
        return f"{brief(move)}, and {drawn} drawn given all else" if drawn else brief(move)

    def checkpoint(self, given: Any, model: ReverseModel, proposal: Proposal) -> Checkpoint | None:
        """Where the state is kept, with the identity of the run."""
        if given is None:
            return None
        identity = {
            "smcdiff": __version__,
            "model": model.problem.fingerprint,
            "proposal": brief(proposal),
            "kernel": brief(model.kernel),
            "move": str(self.moves_in_words(model.problem)),
            "grid": brief(self.settings.grid_for(model.problem.prior, proposal)),
            "num_steps": str(self.settings.num_steps),  # the filter counts one more
        }
        if isinstance(given, Checkpoint):
            return Checkpoint(given.folder, {**identity, **given.identity}, given.every)
        return Checkpoint(given, identity)


@partial(jax.jit, static_argnames="num_chains")
def keys_of_chains(keys: Key[Array, " items"], num_chains: int) -> Key[Array, "chains 2"]:
    """Two keys for each chain of each item, to prepare and to run with; more chains change none."""
    own = jax.vmap(lambda key: jax.random.split(key, num_chains))(keys)
    return jax.vmap(jax.random.split)(own.ravel())


def _in_reverse_steps(progress: Progress) -> Progress:
    """Progress of the diffusion's steps, from that of the filter's, which has one more."""

    def called(t: int, num_steps: int, info: dict[str, Any]) -> None:
        if t > 0:
            progress(t - 1, num_steps - 1, info)

    return called
