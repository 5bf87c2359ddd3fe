"""Network evaluations and vector-Jacobian products per particle and step, counted as they run."""

import collections

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import kernels, priors, proposals, schedules
from smcdiff.problem import ReverseModel, read
from tests.proposals.models import ExactNetwork

D_Y, STEPS = 2, 6
COUNTS = collections.Counter()


def _count(what, operand):
    """Counts calls; the operand makes a mapped call count as often as it is mapped."""
    jax.debug.callback(lambda _: COUNTS.update([what]), operand)


@jax.custom_vjp
def _network(x):
    _count("evaluations", x)
    return jnp.tanh(x)


def _forward(x):
    return _network(x), x


def _backward(x, cotangent):
    _count("pullbacks", cotangent)
    return ((1.0 - jnp.tanh(x) ** 2) * cotangent,)


_network.defvjp(_forward, _backward)

# (evaluations, pullbacks) with weights on; what the class's docstring says. RePaint and Rejuvenated
# at a step that jumps: 10 repeats are 9 evaluations more, one move is one and one more twist.
COSTS = {
    "Bootstrap": (1, 0),
    "Replacement": (1, 0),
    "SMCDiff": (1, 0),
    "RePaint": (1 + 9, 0),
    "DPS": (1, 1),
    "PiGDM": (1, 1),
    "Twisted": (1, 1),
    "TwistedPath": (1, 1),  # at a level where it steers; below, no pullback
    "MomentMatched": (1, D_Y),
    "KrylovMomentMatched": (1, 3),
    "LanczosMomentMatched": (1, 5),  # size + 1, and events of 4 entries have no more directions
    "MCGDiff": (1, 0),
    "FPS": (1, 0),
    "DDRM": (1, 0),
    "DAPS": (1, 0),
    "Rejuvenated": (1 + 3, 0),
    "FKSteering": (1, 0),
    "ClassifierGuidance": (1, 0),
    "ClassifierFree": (2, 0),
    "Amortized": (2, 0),
}


def _model(y):
    prior = priors.DiffusionPrior(lambda x, t: _network(x), schedules.Cosine(), (4,), probe=False)
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x[:D_Y], 0.5).to_event(1), obs=y)


def test_every_sampler_is_counted():
    exported = {
        name for name, value in vars(proposals).items()
        if isinstance(value, type) and issubclass(value, proposals.Proposal)
    } - {"Proposal", "Steered", "Weighed", "Conditioned"}  # fmt: skip
    samplers = (*proposals.SAMPLERS, *proposals.CONDITIONAL_SAMPLERS)
    assert set(COSTS) == {sampler.__name__ for sampler in samplers} == exported


@pytest.mark.parametrize("name", COSTS)
def test_cost(name):
    problem = read(_model, (jnp.ones(D_Y),))
    levels = schedules.UniformLogSNR()(problem.prior.schedule, STEPS)
    model = ReverseModel(problem, kernels.DDIM(), levels)
    made = {
        "ClassifierGuidance": lambda: proposals.ClassifierGuidance(lambda x, t: jnp.sum(x)),
        "ClassifierFree": lambda: proposals.ClassifierFree(problem.prior),
        "Amortized": lambda: proposals.Amortized(ExactNetwork(problem.prior)),
    }
    proposal = made.get(name, getattr(proposals, name))()
    proposal.check(model)
    prepared = proposal.prepare(jax.random.key(0), model)

    @jax.jit
    def step(key, x, n):
        t, s = model.level(n), model.level(n + 1)
        evaluation = proposal.evaluate(model, prepared, x, t)
        return proposal.propose(key, model, prepared, x, evaluation, t, s).x

    x = 0.1 * jnp.ones(4)
    jax.block_until_ready(step(jax.random.key(1), x, jnp.int32(2)))
    jax.effects_barrier()
    COUNTS.clear()
    jax.block_until_ready(step(jax.random.key(1), x, jnp.int32(2)))
    jax.effects_barrier()
    assert (COUNTS["evaluations"], COUNTS["pullbacks"]) == COSTS[name]
