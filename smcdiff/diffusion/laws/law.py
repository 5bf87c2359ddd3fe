"""What a law of x_s given x_t is, to a sampler that draws from it and weighs the draw."""

from __future__ import annotations

from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import Module


class Law(Module):
    """A law q to draw x_s from, in the place of the reverse kernel p.

    The reverse kernel itself is a `Mixture`, whose ratio is one. The others change one: tilt it,
    condition it, translate it, fix a part of x_s, or put another density in its place. Ratios are
    computed from the change and, where that is possible, not as a difference of two densities, so
    that they stay finite where p is a Dirac (the last step of DDIM and DDPM).
    """

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """One draw of q."""
        raise NotImplementedError(f"{type(self).__name__} must define sample")

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log p(x) - log q(x)."""
        raise NotImplementedError(f"{type(self).__name__} must define log_ratio")
