"""At which noise a network's score is worth most: the digits prior's own draws, and worse ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro

from smcdiff import load_prior
from smcdiff.diagnostics.stein import score_stein_discrepancy

LEVELS = [2.4, 4.0, 5.0, 6.0, 8.0]
CAPTION = """\
## At which noise the score of a network is taken

U over its standard error for COUNT of the digits prior's own draws, without data, c = 10, and for
what was made of them: noise of 0.1 added, halves of two digits added, nine tenths of a digit. The
first should be 0 +- 1, the others large. Pairs: points x +- noise over which the score is averaged;
0 is the draw itself.
"""


def no_data(prior):
    """The prior is the posterior."""
    x = numpyro.sample("x", prior)
    numpyro.factor("nothing", 0.0 * jnp.sum(x))


def table(count: int, levels=LEVELS) -> list[str]:
    """Lines of the table."""
    prior = load_prior("mnist")
    draws = prior.sample(jax.random.key(0), (count,))
    sets = {
        "own draws": draws,
        "noise": draws + 0.1 * jax.random.normal(jax.random.key(1), draws.shape),
        "halves": 0.5 * (draws + jnp.roll(draws, 1, axis=0)),
        "nine tenths": 0.9 * draws,
    }
    lines = [CAPTION.replace("COUNT", str(count))]
    lines += [f"| log-SNR | pairs | {' | '.join(sets)} |", "|" + "---|" * (2 + len(sets))]
    for level in levels:
        for num_pairs in (0, 1, 2):
            cells = []
            for values in sets.values():
                found = score_stein_discrepancy(
                    jax.random.key(2), values, no_data, prior,
                    log_snr=level, num_pairs=num_pairs, scale=10.0,
                )  # fmt: skip
                cells.append(f"{found.u_statistic / found.standard_error:.1f}")
            lines.append(f"| {level} | {num_pairs} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    return [*lines, ""]
