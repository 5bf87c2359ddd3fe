"""A proposal of one's own: the reverse kernel, tilted along a tempered likelihood."""

import jax

from smcdiff import laws, proposals, static, twists


class Nudged(proposals.Proposal):
    """Tilts by the gradient of strength log p(y given m(x_t)), which is the twist, too.

    Attributes:
        strength: in (0, 1]; a static field: another value is another program.
    """

    strength: float = static(default=0.3)

    def evaluate(self, model, prepared, x, t):
        """At x_t = x: log psi_t, the denoised mean, and the gradient that the draw needs."""

        def log_twist(x):
            denoised = model.denoise(x, t)
            return self.strength * model.log_likelihood(denoised), denoised

        (value, denoised), gradient = jax.value_and_grad(log_twist, has_aux=True)(x)
        return twists.Evaluation(value, denoised, gradient)

    def law(self, model, prepared, x, evaluation, t, s):
        """Where x_s is drawn from; a law knows its density's ratio to the reverse kernel's."""
        kernel = model.transition(x, evaluation.denoised, t, s)
        return laws.Tilted.of(kernel, evaluation.detail)
