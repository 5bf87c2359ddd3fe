"""Reading a NumPyro model: its diffusion site, its observations, and their structure.

`read` traces the model outside jit and returns a `Problem`: a pytree whose leaves are the prior
found at the diffusion site and the array arguments of the model, and whose static part is the model
function and what was learned of its structure. A compiled run therefore serves every call of the
same model with arguments of the same shapes.
"""

from smcdiff.problem.problem import Problem as Problem
from smcdiff.problem.reading import read as read
