"""`Problem`: a model that was read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import Module, static
from smcdiff.errors import InputError
from smcdiff.priors import Prior
from smcdiff.problem import _sites as sites
from smcdiff.problem._arguments import StaticArguments
from smcdiff.problem._layout import Layout
from smcdiff.problem._named_axes import NamedAxes
from smcdiff.problem._observation import (
    ExactObservation,
    GaussianObservation,
    Observation,
    observation_of,
)
from smcdiff.problem._parameters import Parameters
from smcdiff.problem._program_key import ProgramKey
from smcdiff.problem._sites import Site
from smcdiff.problem._stages import Held, prior_given, scale_of
from smcdiff.problem._tracing import trace
from smcdiff.problem.linear import LinearObservation, RecognisedOperator, TracedOperator


class Problem(Module):
    """A NumPyro model, read: everything that a sampler needs to know of it.

    Attributes:
        prior: the distribution of the diffusion site, or of all of them together.
        arguments: array arguments of the model.
        recognised: the operator of the package that the mean applies to x, where it is one, and
            the same whatever the parameters are.
        parameters: a value of the unknown parameters; None where there are none. All that the
            problem says of x holds given this value, see `at`.
        model: the NumPyro model.
        fixed: the rest of the model's arguments.
        layout: the diffusion sites, and where each of them lies in an event of the prior.
        observed_sites: names of the observed sites, ``numpyro.factor`` sites included.
        num_observations: number of observed scalars d_y (factors excluded, masked ones included;
            of a quadratic one its rank).
        kind: what kind of observation it is; see `smcdiff.problem._observation`.
        is_linear: whether every observed site is Gaussian or exact with a mean affine in the
            diffusion site and a scale that does not depend on it, or the log likelihood is a
            concave quadratic function of the site.
        quadratic_rank: of a linear-Gaussian observation that has no means, as ``numpyro.factor``
            says it, the number of directions of x that it sees; else None.
        equal_noise: whether all entries have the same noise, and none is masked.
        key: of what the model and the denoiser read besides their arguments.
        held: values of the diffusion sites of earlier stages, on which the prior depends; None
            where there are none. All that the problem says of x holds given them, see `holding`.
        before: the problems of the earlier stages, see `smcdiff.problem._stages`.
        has_later: whether there are later stages, of whose sites there is a guess.
        named_axes: of the sites; see `smcdiff.problem._named_axes`.
    """

    prior: Prior
    arguments: tuple[Array, ...]
    recognised: RecognisedOperator | None
    parameters: Parameters | None
    model: Callable = static()
    fixed: StaticArguments = static()
    layout: Layout = static()
    observed_sites: tuple[str, ...] = static()
    num_observations: int = static()
    kind: type[Observation] = static()
    is_linear: bool = static(default=False)
    quadratic_rank: int | None = static(default=None)
    equal_noise: bool = static(default=False)
    key: tuple[ProgramKey, ...] = static(default=())
    held: Held | None = None
    before: tuple[Problem, ...] = ()
    has_later: bool = static(default=False)
    named_axes: NamedAxes = static(default=())

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event of the prior."""
        return self.prior.event_shape

    @property
    def site(self) -> str:
        """The diffusion site, or all of them, for messages."""
        return self.layout.title

    @property
    def is_noise_free(self) -> bool:
        """Whether the observation is exact (Delta)."""
        return issubclass(self.kind, ExactObservation)

    @property
    def is_gaussian(self) -> bool:
        """Whether every observed site is Normal or MultivariateNormal, the mean being anything."""
        return self.kind is GaussianObservation

    def trace(
        self, x: Float[Array, "*event"] | None = None, later: dict[str, Array] | None = None
    ) -> dict[str, Site]:
        """All sites of a run of the model.

        Args:
            x: one event; None is zeros.
            later: values of the sites of later stages; without them they are guessed.
        """
        args, kwargs = self.fixed.rebuild(self.arguments)
        known = None if self.parameters is None else self.parameters.by_site
        values = {**self.layout.values_at(x), **(later or {})}
        if self.held is not None:
            values |= self.held.by_site
        return trace(self.model, args, kwargs, values, known, guesses=self.has_later)

    @property
    def varies(self) -> bool:
        """Whether each particle has a problem of its own: its parameters, or its earlier sites."""
        return self.parameters is not None or self.held is not None

    def given(self, values: Float[Array, " p"]) -> Problem:
        """The problem of a particle, by what it `varies` with."""
        return self.at(values) if self.parameters is not None else self.holding(values)

    def holding(self, values: Float[Array, " p"]) -> Problem:
        """The problem given other values of the sites of earlier stages, flat."""
        assert self.held is not None
        held = dataclasses.replace(self.held, values=values)
        given = dataclasses.replace(self, held=held)
        (name,) = self.layout.names
        return dataclasses.replace(given, prior=prior_given(self.prior, given.trace()[name]))

    def guess_later(
        self, x: Float[Array, "*event"]
    ) -> tuple[dict[str, Array], dict[str, Float[Array, ""]]]:
        """What the priors of later stages make of noise, given ``x``: one evaluation of each.

        Returns:
            A value for each site, and the standard deviation of its entries about it.
        """
        found = {n: s for n, s in self.trace(x).items() if s["type"] == "sample"}
        known = {*self.layout.names, *(() if self.held is None else self.held.layout.names)}
        later = {n: s for n, s in found.items() if sites.is_diffusion(s["fn"]) and n not in known}
        scales = {name: scale_of(sites.unwrap(site["fn"])) for name, site in later.items()}
        return {name: site["value"] for name, site in later.items()}, scales

    def at(self, parameters: Float[Array, " p"]) -> Problem:
        """The problem given another value of the unknown parameters, unconstrained."""
        held = self.unknowns
        return dataclasses.replace(self, parameters=dataclasses.replace(held, values=parameters))

    def draw_parameters(self, key: PRNGKeyArray) -> Float[Array, " p"]:
        """A draw of the unknown parameters from their prior, unconstrained."""
        held = self.unknowns
        args, kwargs = self.fixed.rebuild(self.arguments)
        return Parameters.of(trace(self.model, args, kwargs, key=key), held.names).values

    def log_prior(self) -> Float[Array, ""]:
        """Log prior density of the unknown parameters, in unconstrained space."""
        return self.unknowns.log_prior(self.trace())

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Sites of the unknown parameters; empty where there are none."""
        return () if self.parameters is None else self.parameters.names

    @property
    def unknowns(self) -> Parameters:
        """The unknown parameters of a model that has some."""
        if self.parameters is None:
            raise ValueError("the model has no unknown parameters")
        return self.parameters

    def observe(
        self, x: Float[Array, "*event"] | None = None, later: dict[str, Array] | None = None
    ) -> Observation:
        """What the observed sites say of ``x`` (None: zeros); ``later`` as in `trace`."""
        found = self.trace(x, later)
        return observation_of({name: found[name] for name in self.observed_sites})

    def sole_observation(self, what: str) -> Array:
        """The value of the one observed site.

        Args:
            what: was trained on one, for the message.

        Raises:
            InputError: several observed sites, or none but factors.
        """
        values = self.observe().values
        if len(values) != 1:
            raise InputError(
                f"the model observes the sites {sorted(values)}; {what} was trained on one"
            )
        (y,) = values.values()
        return y

    def require_known(self, what: str) -> None:
        """Raises ``InputError`` where a model has unknown parameters, or dependent diffusion sites.

        Args:
            what: does not take them, for the message.
        """
        if self.parameters is not None:
            raise InputError(
                f"{what}: sites {list(self.parameter_names)} are unknown; give their values with"
                " numpyro.handlers.substitute(model, {...})"
            )
        self.require_independent(what)

    def require_independent(self, what: str) -> None:
        """Raises ``InputError`` where diffusion sites depend on each other.

        Args:
            what: does not take them, for the message.
        """
        if self.held is not None:
            raise InputError(
                f"{what}: the diffusion prior of site '{self.site}' depends on"
                f" {list(self.held.layout.names)}, and it takes independent diffusion sites only"
            )

    def observe_gaussian(self, x: Float[Array, "*event"] | None = None) -> GaussianObservation:
        """The same of a problem whose sites are Gaussian or exact.

        Raises:
            InputError: an observed site that is neither.
        """
        observation = self.observe(x)
        if not isinstance(observation, GaussianObservation):
            found = observation.sites.items()
            others = [n for n, s in found if not (sites.is_gaussian(s) or sites.is_exact(s))]
            raise InputError(
                f"sites {others} are not Normal or MultivariateNormal, so there is no misfit to"
                " follow; use proposals.Twisted() or proposals.Bootstrap()"
            )
        return observation

    def log_likelihood(self, x: Float[Array, "*event"]) -> Float[Array, ""]:
        """Log p(y given x); see `Observation.log_likelihood`."""
        return self.observe(x).log_likelihood

    def describe(self, x: Float[Array, "*event"]) -> tuple[dict[str, Array], dict[str, Array]]:
        """What else the model says of a particle at the end of a run, from one run of the model.

        Args:
            x: one event.

        Returns:
            Its unknown parameters and ``numpyro.deterministic`` sites, and the pointwise log
            likelihood.
        """
        found = self.trace(x)
        names = (
            *self.parameter_names,
            *(n for n, site in found.items() if site["type"] == "deterministic"),
        )
        computed = {name: jnp.asarray(found[name]["value"]) for name in names}
        observed = observation_of({name: found[name] for name in self.observed_sites})
        return computed, observed.pointwise

    def linear_observation(self) -> LinearObservation:
        """The observation with its operator; for what all particles share, once per run.

        Raises:
            InputError: the observation is not linear-Gaussian.
        """
        if not self.is_linear:
            raise InputError(
                f"site '{self.site}': the observation is not linear-Gaussian; pass linear=True if"
                " it is, or use a proposal that needs no linear observation"
            )
        if self.quadratic_rank is not None:
            return LinearObservation.of_quadratic(
                self.log_likelihood, self.event_shape, self.quadratic_rank
            )
        at_zero = self.observe_gaussian()
        normaliser, exact = at_zero.log_normaliser, self.is_noise_free
        if self.recognised is None:
            whitened = jax.tree_util.Partial(_whitened, self)
            operator = TracedOperator(whitened, self.event_shape, self.num_observations)
            return LinearObservation(operator, at_zero.whitened, normaliser, exact)
        return LinearObservation.of_recognised(
            self.recognised, _roots(at_zero), at_zero.whitened, normaliser,
            equal=self.equal_noise, noise_free=exact,
        )  # fmt: skip

    @property
    def fingerprint(self) -> str:
        """Of the program that `key` stands for; the same in another process."""
        return " ".join(key.fingerprint for key in self.key)

    @property
    def size(self) -> int:
        """Entries d of an event."""
        return math.prod(self.event_shape)


def _whitened(problem: Problem, x: Float[Array, "*event"]) -> Float[Array, " m"]:
    return problem.observe_gaussian(x).whitened


def _roots(observation: GaussianObservation) -> Float[Array, " m"]:
    """What whitening multiplies each entry by; only of sites for which it is a multiplication."""
    roots = [sites.precision_roots(site) for site in observation.sites.values()]
    return jnp.concatenate([root for root in roots if root is not None])
