"""A twist of one's own: the likelihood of the denoised mean, trusted as the noise goes."""

from smcdiff import static, twists


class Annealed(twists.MeanTwist):
    """psi_t = p(y given m(x_t))^(alpha_t^power), which is the likelihood at t = 0.

    A function of the denoised mean, so that any proposal that steers or weighs by one takes it:
    ``proposals.Twisted(twist=Annealed())``, ``proposals.DDRM(twist=Annealed())``.

    Attributes:
        power: how late the observation is trusted.
    """

    power: float = static(default=2.0)

    def at(self, model, prepared, x, denoised, t):
        """Log psi_t, from the particle and its denoised mean, both flat."""
        observation = model.problem.observe(model.event(denoised))
        value = t.alpha**self.power * observation.log_twist
        return twists.Evaluation(value, denoised)
