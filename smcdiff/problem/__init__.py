"""The problem: a NumPyro model, read, and its reverse diffusion.

`read` traces the model outside jit and returns a `Problem`: a pytree whose leaves are the prior
found at the diffusion site and the array arguments of the model, and whose static part is the model
function and what was learned of its structure. A compiled run therefore serves every call of the
same model with arguments of the same shapes. A `ReverseModel` is the problem with a reverse kernel
and a grid of noise levels: what twists and proposals see.
"""

from smcdiff.problem.linear import LinearObservation as LinearObservation
from smcdiff.problem.problem import Problem as Problem
from smcdiff.problem.reading import read as read
from smcdiff.problem.reverse import ReverseModel as ReverseModel
