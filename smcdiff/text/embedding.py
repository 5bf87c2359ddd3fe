"""`TextEmbedding`: what a text encoder makes of captions, as one pytree."""

from __future__ import annotations

from jaxtyping import Array, Bool, Float

from smcdiff.base.module import Module


class TextEmbedding(Module):
    """Captions as a frozen text encoder reads them: one, or a batch along the first axes.

    Of what a mask hides, the states are zeros. A caption of which everything is hidden is finite:
    zeros, and a pooled vector of zeros.

    Attributes:
        states: a vector per token, the encoder's last hidden states.
        mask: which tokens are the caption's; the others are padding.
        pooled: one vector for the whole caption.
    """

    states: Float[Array, "*n tokens width"]
    mask: Bool[Array, "*n tokens"]
    pooled: Float[Array, "*n pooled_width"]
