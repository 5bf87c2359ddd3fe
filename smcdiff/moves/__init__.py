"""How unknown parameters are moved, given the state of a particle.

A model may have latent sites beside its diffusion site: a noise level, a blur width, coefficients.
Particles carry their values, in unconstrained space, and after each reverse step move them by some
steps of a Markov chain that leaves p(theta) psi_s(x_s, theta) as it is, at the state that the
particle has reached (Gilks and Berzuini 2001): no new network evaluation, since the twist is a
function of theta once the denoised mean is known. BlackJAX makes the steps, in coordinates in which
the weighted particles have unit covariance, and of a size that their acceptance has set.
"""

from smcdiff.moves.base import Move as Move
from smcdiff.moves.kernels import HMC as HMC
from smcdiff.moves.kernels import MALA as MALA
from smcdiff.moves.kernels import RandomWalk as RandomWalk
