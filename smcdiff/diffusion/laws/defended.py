"""A change of the reverse kernel, mixed with the reverse kernel itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion.laws.law import Law
from smcdiff.diffusion.laws.mixture import Mixture


class Defended(Law):
    """The law (1 - share) q + share p, where q changes p.

    Its ratio is at most 1 / share, however wrong q is: the defensive mixture of importance sampling
    (Hesterberg 1995, section 3).

    Attributes:
        changed: q.
        base: p.
        log_shares: of q and of p.
    """

    changed: Law
    base: Mixture
    log_shares: tuple[Float[Array, ""], Float[Array, ""]]

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """One draw."""
        key_pick, key_draw = jax.random.split(key)
        changed = jnp.log(jax.random.uniform(key_pick)) < self.log_shares[0]
        # Both from one key: only one of them is used.
        return jnp.where(changed, self.changed.sample(key_draw), self.base.sample(key_draw))

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log p - log of the mixture, at x."""
        changed, base = self.log_shares
        return -jnp.logaddexp(changed - self.changed.log_ratio(x), base)
