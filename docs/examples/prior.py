"""A prior of one's own: binary images, by the posterior mean that is known in closed form."""

import jax
import jax.numpy as jnp

from smcdiff import priors, schedules


class Binary(priors.Prior):
    """Independent pixels that are 1 with a probability of their own, and else -1.

    E[x_0 given x_t] = tanh(alpha x_t / sigma^2 + log(p / (1 - p)) / 2), entry by entry.
    """

    probability: jax.Array  # an annotated field is a leaf of the pytree

    def __init__(self, probability):
        """Probabilities of the event's shape."""
        self.probability = jnp.asarray(probability)
        super().__init__(schedules.Cosine(), self.probability.shape)

    def posterior_mean(self, x, t):
        """All that a prior must define; `Prior` lists what else it may know."""
        level = self.schedule.level(t)
        log_odds = jnp.log(self.probability) - jnp.log1p(-self.probability)
        return jnp.tanh(level.alpha * x / level.sigma**2 + 0.5 * log_odds)
