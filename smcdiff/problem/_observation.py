"""What the observed sites of one run of a model say of x: an object made once per trace.

There are three kinds. Of a `GaussianObservation` the misfit can be followed and whitened, of an
`ExactObservation` x satisfies it or does not, and of any other `Observation` there is only the log
likelihood. Where a Gaussian or exact one is linear in x, `smcdiff.problem.linear` has its operator.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.problem import _sites as sites
from smcdiff.problem._sites import Site


@dataclasses.dataclass(frozen=True)
class Observation:
    """The observed sites of a run of the model at one x, ``numpyro.factor`` sites included.

    Attributes:
        sites: by name, in the order of the model.
    """

    sites: dict[str, Site]

    @property
    def log_likelihood(self) -> Float[Array, ""]:
        """Log p(y given x): all observed sites and factors, with their scales and masks.

        An exact observation has no density to give. It is 0, on the understanding that x satisfies
        it, to which the samplers that take one hold their particles.
        """
        return _sum(self.pointwise.values())

    @property
    def pointwise(self) -> dict[str, Array]:
        """The log likelihood of each observed site, of the site's batch shape."""
        return {name: sites.log_prob(site) for name, site in self.sites.items()}

    @property
    def log_twist(self) -> Float[Array, ""]:
        """The log likelihood at a guess of x_0: terms of minus infinity count as -10.

        That the guess is impossible does not make x_0 so: a twist of zero would be wrong, and its
        ratio to a later one NaN.
        """
        return _sum(_possible(term) for term in self.pointwise.values())

    @property
    def entrywise_log_twist(self) -> Float[Array, " n"]:
        """`log_twist` of every observed entry (``to_event`` undone), factors' too, flat."""
        return _possible(jnp.concatenate([sites.entry_log_prob(s) for s in self.sites.values()]))

    def entrywise_peak(self, key: PRNGKeyArray, num_draws: int) -> Float[Array, " n"]:
        """About how large each entry's log likelihood gets where x explains the observation.

        It is the largest among draws of the observation at x; 0 for factors, and for distributions
        that cannot be sampled.

        Args:
            key: random key.
            num_draws: number of draws.

        Returns:
            The entries, in the order of `entrywise_log_twist`.
        """
        peaks = []
        for index, site in enumerate(self.sites.values()):
            try:
                with jax.numpy_rank_promotion("allow"):  # as NumPyro does where it samples
                    draws = site["fn"].sample(jax.random.fold_in(key, index), (num_draws,))
            except NotImplementedError:
                draws = None
            if draws is None or sites.is_factor(site):
                peaks.append(jnp.zeros_like(sites.entry_log_prob(site)))
            else:
                terms = jax.vmap(lambda draw, site=site: sites.entry_log_prob(site, draw))(draws)
                peaks.append(jnp.max(terms, axis=0))
        return jnp.concatenate(peaks)

    @property
    def entrywise_centre(self) -> Float[Array, " n"]:
        """Each entry's log likelihood were the centre of its distribution observed.

        In the order of `entrywise_log_twist`: a smooth function of whatever the distributions
        depend on, which changes as their peaks do.
        """
        found = self.sites.values()
        terms = [sites.entry_log_prob(s, sites.centre(s)) for s in found]
        return _possible(jnp.concatenate(terms))

    @property
    def centres(self) -> dict[str, Array]:
        """Observed site -> the centre of its distribution."""
        return {name: sites.centre(site).astype(float) for name, site in self.sites.items()}

    def entrywise_widened(
        self, peaks: Float[Array, " n"], variances: dict[str, Array]
    ) -> Float[Array, " n"]:
        """About how large each entry's density gets where its centre is not known.

        Args:
            peaks: of their logs, in the order of `entrywise_log_twist`.
            variances: observed site -> variances of its centre.
        """
        sizes = [sites.entry_log_prob(site).size for site in self.sites.values()]
        parts = zip(self.sites.items(), jnp.split(peaks, np.cumsum(sizes)[:-1]), strict=True)
        return jnp.concatenate(
            [sites.widened_peak(site, own, variances[name]) for (name, site), own in parts]
        )

    @property
    def values(self) -> dict[str, Array]:
        """Observed values by site; factors have none and are left out."""
        found = self.sites.items()
        return {name: jnp.asarray(s["value"]) for name, s in found if not sites.is_factor(s)}


@dataclasses.dataclass(frozen=True)
class GaussianObservation(Observation):
    """Every site is Normal or MultivariateNormal; their means may be anything."""

    @property
    def misfit(self) -> Float[Array, " m"]:
        """Misfit y - mean(x), flat, in the units of y; masked entries are 0."""
        return jnp.concatenate([jnp.ravel(sites.misfit(site)) for site in self.sites.values()])

    @property
    def whitened(self) -> Float[Array, " m"]:
        """The misfit over its noise: log p(y given x) = log_normaliser - |whitened|^2 / 2."""
        return jnp.concatenate([sites.whiten(site) for site in self.sites.values()])

    @property
    def log_normaliser(self) -> Float[Array, ""]:
        """The constant of the log likelihood, see `whitened`.

        From the scales alone: a difference of the other two would lose its digits where the misfit
        is large.
        """
        return _sum(sites.log_peak(site) for site in self.sites.values())


@dataclasses.dataclass(frozen=True)
class ExactObservation(GaussianObservation):
    """Every site is a Delta: the limit of no noise, whose whitened misfit is the misfit itself."""


def observation_of(found: dict[str, Site]) -> Observation:
    """The observation of the observed sites of a trace, of the most special kind that fits."""
    if all(sites.is_exact(site) for site in found.values()):
        return ExactObservation(found)
    if all(sites.is_gaussian(site) for site in found.values()):
        return GaussianObservation(found)
    return Observation(found)


def _possible(terms: Array) -> Array:
    """Log likelihoods at a guess of x_0, with -10 in place of minus infinity."""
    return jnp.where(jnp.isneginf(terms), -10.0, terms)


def _sum(terms) -> Float[Array, ""]:
    return sum((jnp.sum(term) for term in terms), jnp.zeros(()))
