"""`Problem`: a model that was read."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import Module, static
from smcdiff.errors import InputError
from smcdiff.priors.base import DiffusionDistribution
from smcdiff.problem import sites
from smcdiff.problem.arguments import StaticArguments


def _possible(terms: Array) -> Array:
    """Log likelihoods at a guess of x_0, with -10 in place of minus infinity."""
    return jnp.where(jnp.isneginf(terms), -10.0, terms)


class Problem(Module):
    """A NumPyro model, read: everything that a sampler needs to know of it.

    Attributes:
        prior: the distribution of the diffusion site.
        arguments: array arguments of the model.
        model: the NumPyro model.
        fixed: the rest of the model's arguments.
        site: name of the diffusion site.
        observed_sites: names of the observed sites, ``numpyro.factor`` sites included.
        num_observations: number of observed scalars d_y (factors excluded, masked ones included).
        linear: whether every observed site is Gaussian or exact with a mean affine in the
            diffusion site and a scale that does not depend on it.
        noise_free: whether the observed sites are exact (Delta); all are or none is.
        fingerprint: of what the model reads besides its arguments; see
            `smcdiff.problem.fingerprint`.
    """

    prior: DiffusionDistribution
    arguments: tuple[Array, ...]
    model: Callable = static()
    fixed: StaticArguments = static()
    site: str = static()
    observed_sites: tuple[str, ...] = static()
    num_observations: int = static()
    linear: bool = static()
    noise_free: bool = static()
    fingerprint: str = static(default="")

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event of the diffusion site."""
        return self.prior.event_shape

    def observed(self, x: Float[Array, "*event"] | None = None) -> dict[str, sites.Site]:
        """The observed sites of a run of the model at ``x`` (None: zeros), factors included."""
        trace = self._trace(x)
        return {name: trace[name] for name in self.observed_sites}

    def _trace(self, x: Float[Array, "*event"] | None) -> dict[str, sites.Site]:
        args, kwargs = self.fixed.rebuild(self.arguments)
        with numpyro.validation_enabled(False):  # zeros may be no scale, and were checked at others
            return sites.trace(self.model, args, kwargs, x)

    def log_likelihood(self, x: Float[Array, "*event"]) -> Float[Array, ""]:
        """Log p(y given x): all observed sites and factors, with their scales and masks.

        An exact observation has no density to give. It is 0, on the understanding that x satisfies
        it, to which the samplers that take one hold their particles.
        """
        terms = self.pointwise_log_likelihood(x).values()
        return sum((jnp.sum(term) for term in terms), jnp.zeros(()))

    def log_twist(self, x: Float[Array, "*event"]) -> Float[Array, ""]:
        """The log likelihood at a guess of x_0: terms of minus infinity count as -10.

        That the guess is impossible does not make x_0 so: a twist of zero would be wrong, and its
        ratio to a later one NaN.
        """
        terms = self.pointwise_log_likelihood(x).values()
        return sum((jnp.sum(_possible(term)) for term in terms), jnp.zeros(()))

    def pointwise_log_likelihood(self, x: Float[Array, "*event"]) -> dict[str, Array]:
        """The log likelihood of each observed site, of the site's batch shape."""
        return {name: sites.log_prob(site) for name, site in self.observed(x).items()}

    def describe(self, x: Float[Array, "*event"]) -> tuple[dict[str, Array], dict[str, Array]]:
        """What else the model says of a particle at the end of a run, from one run of the model.

        Args:
            x: one event.

        Returns:
            Its ``numpyro.deterministic`` sites, and `pointwise_log_likelihood`.
        """
        trace = self._trace(x)
        computed = {
            name: jnp.asarray(site["value"])
            for name, site in trace.items()
            if site["type"] == "deterministic"
        }
        return computed, {name: sites.log_prob(trace[name]) for name in self.observed_sites}

    def entrywise_log_twist(self, x: Float[Array, "*event"]) -> Float[Array, " n"]:
        """`log_twist` of every observed entry (``to_event`` undone), factors' too, flat."""
        terms = [sites.entry_log_prob(site) for site in self.observed(x).values()]
        return _possible(jnp.concatenate(terms))

    def entrywise_peak(
        self, key: PRNGKeyArray, x: Float[Array, "*event"], num_draws: int
    ) -> Float[Array, " n"]:
        """About how large each entry's log likelihood gets where x explains the observation.

        It is the largest among draws of the observation at x; 0 for factors, and for distributions
        that cannot be sampled.

        Args:
            key: random key.
            x: one event.
            num_draws: number of draws.

        Returns:
            The entries, in the order of `entrywise_log_twist`.
        """
        peaks = []
        for index, site in enumerate(self.observed(x).values()):
            try:
                draws = site["fn"].sample(jax.random.fold_in(key, index), (num_draws,))
            except NotImplementedError:
                draws = None
            if draws is None or sites.is_factor(site):
                peaks.append(jnp.zeros_like(sites.entry_log_prob(site)))
            else:
                terms = jax.vmap(lambda draw, site=site: sites.entry_log_prob(site, draw))(draws)
                peaks.append(jnp.max(terms, axis=0))
        return jnp.concatenate(peaks)

    def observations(self) -> dict[str, Array]:
        """Observed values by site; factors have none and are left out."""
        found = self.observed().items()
        return {n: jnp.asarray(s["value"]) for n, s in found if not sites.is_factor(s)}

    def misfit(self, x: Float[Array, "*event"]) -> Float[Array, " m"]:
        """Misfit y - mean(x) of Gaussian or exact observations, flat; masked ones are 0.

        Raises:
            InputError: an observed site that is not Normal, MultivariateNormal or Delta.
        """
        found = self.observed(x)
        known = {n for n, s in found.items() if sites.is_gaussian(s) or sites.is_exact(s)}
        others = [name for name in found if name not in known]
        if others:
            raise InputError(
                f"sites {others} are not Normal or MultivariateNormal, so there is no misfit to"
                " follow; use proposals.Twisted() or proposals.Bootstrap()"
            )
        return jnp.concatenate([jnp.ravel(sites.misfit(site)) for site in found.values()])

    def residual(self, x: Float[Array, "*event"]) -> Float[Array, " m"]:
        """Whitened residual of a linear-Gaussian observation.

        log_likelihood(x) = const - |residual(x)|^2 / 2; entries that are masked are 0. Of an exact
        observation it is y - A x itself: its whitened noise has the standard deviation 0, not 1.

        Args:
            x: one event.

        Returns:
            (num_observations,), all observed sites in order.

        Raises:
            InputError: the observation is not linear-Gaussian.
        """
        if not self.linear:
            raise InputError(
                f"site '{self.site}': the observation is not linear-Gaussian; pass linear=True if"
                " it is, or use a proposal that needs no linear observation"
            )
        return self.whitened(x)

    def operator(self) -> Callable[[Float[Array, " d"]], Float[Array, " m"]]:
        """The whitened operator A of a linear-Gaussian observation, on flat events.

        It is the derivative of `residual`, whose values would round to the size of y.
        """
        shape = self.event_shape
        _, derivative = jax.linearize(self.residual, jnp.zeros(shape))
        return lambda x: -derivative(x.reshape(shape))

    def matrix(self) -> Float[Array, "m d"]:
        """`operator` as a dense matrix, by as many products as it has columns, or rows if fewer."""
        size = math.prod(self.event_shape)
        jacobian = jax.jacrev if self.num_observations <= size else jax.jacfwd
        return -jacobian(lambda x: self.residual(x.reshape(self.event_shape)))(jnp.zeros((size,)))

    @property
    def gaussian(self) -> bool:
        """Whether every observed site is Normal or MultivariateNormal, the mean being anything."""
        return all(sites.is_gaussian(site) for site in self.observed().values())

    def log_normaliser(self, x: Float[Array, "*event"] | None = None) -> Float[Array, ""]:
        """The constant c of log p(y given x) = c - |whitened(x)|^2 / 2 of Gaussian observations.

        From the scales alone: a difference of the other two would lose its digits where the misfit
        is large. It depends on x (None: zeros) where the scales do.
        """
        found = self.observed(x).values()
        return sum((sites.log_peak(site) for site in found), jnp.zeros(()))

    def whitened(self, x: Float[Array, "*event"]) -> Float[Array, " m"]:
        """Whitened misfit of Gaussian or exact observations, flat; see `residual`."""
        return jnp.concatenate([sites.whiten(site) for site in self.observed(x).values()])
