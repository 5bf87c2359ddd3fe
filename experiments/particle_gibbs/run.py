"""Particle Gibbs started anywhere: a mixture, and half a digit under the shipped learned prior.

    python experiments/particle_gibbs/run.py            # hours on two cores
    python experiments/particle_gibbs/run.py --smoke    # what the slow tests run

Writes results.md. The digits' chains are kept in .npz files beside
them (not in git), a few sweeps at a time: the same command goes on where the last one was.

Mixture: two modes of weights 0.065 and 0.935 in three dimensions, chains started far outside, 4 of
them, 200 sweeps of warmup and 2,000 that count. Error: of the lesser mode's weight, in Monte-Carlo
standard errors as ArviZ reckons them.

Digits: the left half of a digit that no training has seen, noise 0.1, 60 steps, 4 chains started
from held-out digits of four classes, of which 10 sweeps are dropped at once. R-hat is
rank-normalised: of the hidden pixels that vary (sd above 0.1) their largest and the 95 % quantile,
and of the class probabilities that the shipped classifier gives the largest, over classes of mean
probability between 1 % and 99 %. Sweeps until: the first number of them, the 10 not counted, from
which on R-hat is below 1.05 when the first half is dropped.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import logsumexp

from smcdiff import (
    Draws,
    ParticleGibbs,
    exact,
    kernels,
    load_prior,
    operators,
    priors,
    proposals,
    schedules,
)
from smcdiff.results._arviz import convergence
from smcdiff.sampler._sweeps import State

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "mnist_learned"))
from digits import NOISE, classifier, held_out, model, tasks  # noqa: E402

WEIGHTS, MEANS, VARIANCE = np.array([0.3, 0.7]), np.array([[-2.0, 0.0, 1.0], [3.0, 1.0, 0.0]]), 0.5
PRIOR = priors.GaussianMixture(jnp.asarray(WEIGHTS), jnp.asarray(MEANS), VARIANCE)
MATRIX = jnp.array([[1.0, 0.5, -0.3], [0.0, 1.0, 0.8]])
Y = jnp.array([0.7, -0.6])
FAR = jnp.array([[10.0, -10.0, 5.0], [-8.0, 4.0, 0.0], [0.0, 0.0, 0.0], [3.0, 9.0, -9.0]])
START_CLASSES = (0, 1, 4, 7)
FOCUSED = schedules.Focused(-4.0, 4.6)
LIMIT = 1.05


class Method(NamedTuple):
    """A proposal, particles, whether the path is noised anew, and the reverse kernel."""

    proposal: proposals.Proposal
    particles: int
    renoise: bool
    kernel: kernels.Kernel = kernels.AnalyticDPM()


METHODS = {
    "TwistedPath, noised anew": Method(proposals.TwistedPath(until=0.0), 48, True),
    "TwistedPath": Method(proposals.TwistedPath(until=0.0), 48, False),
    "TwistedPath, noised anew, DDPM": Method(
        proposals.TwistedPath(until=0.0), 48, True, kernels.DDIM()
    ),
    "Twisted": Method(proposals.Twisted(), 48, False, kernels.DDIM()),
    "Twisted, noised anew": Method(proposals.Twisted(), 48, True, kernels.DDIM()),
}


def mixture(y=None):
    """Two rows of a three-dimensional mixture."""
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(MATRIX @ x, 0.4).to_event(1), obs=y)


def mixture_rows(options) -> list[str]:
    """A row for each proposal and number of particles."""
    truth = exact.linear_gaussian_posterior(PRIOR, operators.Dense(MATRIX), Y, 0.4)
    logs = np.asarray(truth.log_weights)
    wanted = float(np.exp(logs[0] - logsumexp(logs)))
    lines = [
        f"Weight of the lesser mode: {wanted:.4f}.", "",
        "| proposal | particles | weight | error | ESS | largest R-hat | x_T renewed | CPU s |",
        "|" + "---|" * 8,
    ]  # fmt: skip
    for proposal in (proposals.MomentMatched(), proposals.Twisted(), proposals.Bootstrap()):
        for particles in options.mixture_particles:
            gibbs = ParticleGibbs(
                mixture, proposal, num_particles=particles, num_steps=10, progress_bar=False,
                num_warmup=options.mixture_sweeps // 10, num_samples=options.mixture_sweeps,
            )  # fmt: skip
            begun = time.process_time()
            draws = gibbs.run(jax.random.key(0), y=Y, init=FAR)
            x = draws.samples["x"].astype(float)
            logs = np.log(WEIGHTS) - 0.5 * ((x[..., None, :] - MEANS) ** 2).sum(-1) / VARIANCE
            weight = np.exp(logs[..., 0] - logsumexp(logs, axis=-1))
            told = convergence(weight)
            worst = max(float(np.max(convergence(x)["r_hat"])), float(told["r_hat"]))
            lines.append(
                f"| {type(proposal).__name__} | {particles} | {weight.mean():.4f} |"
                f" {(weight.mean() - wanted) / told['mcse']:+.1f} | {told['ess_bulk']:.0f} |"
                f" {worst:.3f} | {draws.renewed[..., 0].mean():.0%} |"
                f" {time.process_time() - begun:.0f} |"
            )
            print(lines[-1], flush=True)
    return lines


def observation(prior, options):
    """The operator, the observation, which pixels are hidden, the label, and four starts."""
    images, labels = held_out(40)
    operator = tasks(prior.event_shape)["half"]
    clean = jnp.asarray(images[options.digit])
    noise = jax.random.normal(jax.random.key(5), operator.out_shape)
    hidden = np.asarray(operator.adjoint(jnp.ones(operator.out_shape))).ravel() == 0.0
    starts = [int(np.argmax(labels == label)) for label in START_CLASSES]
    y = operator(clean) + NOISE * noise
    return operator, y, hidden, int(labels[options.digit]), jnp.asarray(images[starts])


def chains(options, name: str, prior, judge) -> dict[str, np.ndarray]:
    """The draws of a method, as many as there are; more are made, a few sweeps at a time."""
    method = METHODS[name]
    file = options.output / f"{name.replace(', ', '-').replace(' ', '-')}.npz"
    particles = options.particles or method.particles
    operator, y, _, _, starts = observation(prior, options)
    first, gibbs = (
        ParticleGibbs(
            model, method.proposal, num_particles=particles, num_steps=options.steps,
            num_warmup=warmup, num_samples=options.sweeps_per_block, renoise=method.renoise,
            linear=True, grid=FOCUSED, kernel=method.kernel, progress_bar=False,
        )
        for warmup in (options.warmup, 0)
    )  # fmt: skip
    kept = dict(np.load(file)) if file.exists() else {}
    draws: Draws | None = None
    while (done := int(kept.get("sweeps", 0))) < options.sweeps:
        key = jax.random.fold_in(jax.random.key(0), done)
        begun = time.process_time()
        if draws is None and kept:
            draws = _restored(kept)
        draws = (gibbs if kept else first).run(
            key, prior, operator, y=y, init=starts if draws is None else draws
        )
        images = draws.samples["x"]
        with jax.default_device(jax.devices("cpu")[0]):
            classes = judge(jnp.asarray(images.reshape(-1, *prior.event_shape)))
        made = {
            "x": images.reshape(*images.shape[:2], -1).astype(np.float16),
            "classes": np.asarray(classes).reshape(*images.shape[:2], -1),
            "renewed": draws.renewed,
        }
        seconds = time.process_time() - begun
        kept = {
            **{k: np.concatenate([kept.get(k, v[:, :0]), v], axis=1) for k, v in made.items()},
            "sweeps": np.int64(done + options.sweeps_per_block),
            "seconds": kept.get("seconds", 0.0) + seconds,
            **{f"state_{i}": leaf for i, leaf in enumerate(jax.tree.leaves(draws.state))},
        }
        np.savez(file, **kept)
        print(name, int(kept["sweeps"]), f"{seconds:.0f} s", flush=True)
    return kept


def _restored(kept: dict[str, np.ndarray]) -> Draws:
    """Where the chains were, as `ParticleGibbs` goes on from."""
    parts = [kept[f"state_{i}"] for i in range(2) if f"state_{i}" in kept]
    state = State(jnp.asarray(parts[0]), None, jnp.asarray(parts[1]) if len(parts) > 1 else None)
    empty = np.zeros((0, 0))
    return Draws({}, {}, {}, empty, empty, empty, empty, state=state)


def judged(kept: dict[str, np.ndarray], hidden: np.ndarray, sweeps: int) -> dict[str, float]:
    """R-hat and effective sample size after so many sweeps, the first half dropped."""
    where = slice(sweeps // 2, sweeps)
    pixels = kept["x"][:, where][..., hidden].astype(float)
    pixels = pixels[..., pixels.std(axis=(0, 1)) > 0.1]
    classes = kept["classes"][:, where].astype(float)
    means = classes.mean(axis=(0, 1))
    classes = classes[..., (means > 0.01) & (means < 0.99)]
    told, of_class = convergence(pixels), convergence(classes)
    return {
        "pixels": pixels.shape[-1],
        "pixels_max": float(np.max(told["r_hat"], initial=1.0)),
        "pixels_95": float(np.quantile(told["r_hat"], 0.95)),
        "pixels_ess": float(np.median(told["ess_bulk"])),
        "class": float(np.max(of_class["r_hat"], initial=1.0)),
    }


def digit_rows(options) -> list[str]:
    """A row for each method, and a picture."""
    prior = load_prior("mnist")
    with jax.default_device(jax.devices("cpu")[0]):
        judge = classifier.load()
    _, _, hidden, label, _ = observation(prior, options)
    lines = [
        f"Digit {options.digit} of the held-out ones, a {label}.", "",
        "| method | particles x steps | sweeps | largest R-hat of pixels | 95 % of them | of class"
        " | ESS of a pixel | P(true class) | x_T renewed | CPU s / sweep | sweeps until < 1.05:"
        " class | 95 % of pixels | all |",
        "|" + "---|" * 13,
    ]  # fmt: skip
    record = {}
    for name in options.methods:
        kept = chains(options, name, prior, judge)
        done = int(kept["sweeps"])
        checks = sorted({max(8, done * k // 20) for k in range(1, 21)})
        told = {n: judged(kept, hidden, n) for n in checks if 8 <= n <= done}
        if not told:
            continue
        record[name] = {"sweeps": done, "judged": told}
        last, half = told[max(told)], slice(done // 2, None)
        reached = [
            _first(told, lambda t: t["class"] < LIMIT),
            _first(told, lambda t: t["pixels_95"] < LIMIT),
            _first(told, lambda t: max(t["pixels_max"], t["class"]) < LIMIT),
        ]
        particles = options.particles or METHODS[name].particles
        lines.append(
            f"| {name} | {particles} x {options.steps} | {done} | {last['pixels_max']:.3f} |"
            f" {last['pixels_95']:.3f} | {last['class']:.3f} | {last['pixels_ess']:.0f} |"
            f" {kept['classes'][:, half, label].mean():.2f} |"
            f" {kept['renewed'][:, half, 0].mean():.0%} | {float(kept['seconds']) / done:.1f} |"
            f" {' | '.join(reached)} |"
        )
        print(lines[-1], flush=True)
    (options.output / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    return [*lines, *course(record)]


def course(record: dict[str, dict]) -> list[str]:
    """How R-hat went on, the first half of the sweeps dropped each time."""
    lines = [
        "", "How it went on:", "",
        "| method | after sweeps | largest R-hat of pixels | 95 % of them | of class |"
        " ESS of a pixel |",
        "|" + "---|" * 6,
    ]  # fmt: skip
    for name, kept in record.items():
        for sweeps, told in list(kept["judged"].items())[1::2]:
            lines.append(
                f"| {name} | {sweeps} | {told['pixels_max']:.3f} | {told['pixels_95']:.3f} |"
                f" {told['class']:.3f} | {told['pixels_ess']:.0f} |"
            )
    return lines


def _first(told: dict[int, dict], holds) -> str:
    """The first number of sweeps from which on something holds."""
    good = [n for n in sorted(told) if all(holds(told[m]) for m in told if m >= n)]
    return str(good[0]) if good else "-"


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size")
    parser.add_argument("--sweeps", type=int, default=200, help="of the digits' chains")
    parser.add_argument("--warmup", type=int, default=10, help="sweeps that are dropped at once")
    parser.add_argument("--sweeps-per-block", type=int, default=10)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--digit", type=int, default=0, help="which held-out digit")
    parser.add_argument("--particles", type=int, help="in place of each method's own")
    parser.add_argument("--methods", nargs="*", default=list(METHODS)[:1], choices=list(METHODS))
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    options.mixture_particles, options.mixture_sweeps = (2, 8, 32), 2_000
    given = shlex.join(sys.argv[1:] if arguments is None else arguments)
    if options.smoke:
        options.mixture_particles, options.mixture_sweeps = (4,), 20
        options.particles, options.steps, options.methods = 3, 3, ["TwistedPath"]
        options.sweeps, options.sweeps_per_block, options.warmup = 8, 4, 1
    options.output.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Particle Gibbs from any start", "",
        "Written by", "", f"    python experiments/particle_gibbs/run.py {given}", "",
        "What the columns mean is at the head of run.py.", "",
        "## A mixture, from far outside", "", *mixture_rows(options), "",
        "## Half a digit, the prior learned", "", *digit_rows(options), "",
    ]  # fmt: skip
    (options.output / "results.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
