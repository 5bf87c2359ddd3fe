"""The contrastive loss of pictures and captions, symmetric, with hard negatives on one side."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def contrastive_loss(
    scores: Float[Array, "b b"],
    same: Bool[Array, "b b"],
    negatives: Float[Array, "b k"],
    is_negative: Bool[Array, "b k"],
) -> Float[Array, ""]:
    """Symmetric cross-entropy (CLIP, Radford et al. 2021, figure 3), duplicates allowed for.

    Where several pairs of a batch have one caption, every picture of it is right for every copy of
    it: the wanted distribution is uniform over them, in both directions. Each picture is told
    apart from some wrong captions of its own too; no caption is told apart from wrong pictures.

    Args:
        scores: of pictures (rows) with captions (columns), scaled cosines.
        same: which pairs have the same caption; true on the diagonal, symmetric.
        negatives: scores of each picture with wrong captions of its own.
        is_negative: which of these count.

    Returns:
        The mean over pairs of both directions' cross-entropy, halved, in nat.
    """
    wanted = same / jnp.sum(same, axis=1, keepdims=True)
    # Finite, for zero times an infinite logarithm would be NaN.
    hidden = jnp.where(is_negative, negatives, jnp.finfo(negatives.dtype).min)
    of_pictures = jax.nn.log_softmax(jnp.concatenate([scores, hidden], axis=1), axis=1)
    of_captions = jax.nn.log_softmax(scores, axis=0)
    captions = len(scores)
    both = of_pictures[:, :captions] + of_captions
    return -0.5 * jnp.sum(wanted * both) / captions
