"""Layers that the encoders share, on weights under the names and in the layouts of their files.

The weights may be short floats, as files of large encoders hold them; what is computed is float32.
(The states of T5-XXL do not fit into float16.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Weights = Mapping[str, Float[Array, "..."]]
"""By name."""
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "silu": jax.nn.silu,
}
"""By the names of transformers: ``gelu`` is the exact one, ``gelu_new`` the one by tanh."""


def vector(weights: Weights, name: str) -> Float[Array, "1 1 k"]:
    """A vector of weights, along the last axis."""
    return weights[name].astype(jnp.float32)[None, None]


def rows(
    weights: Weights, name: str, indices: Int[Array, "*shape"]
) -> Float[Array, "*shape width"]:
    """The rows of a table, an embedding."""
    return weights[name][indices].astype(jnp.float32)


def linear(
    weights: Weights, name: str, x: Float[Array, "n tokens inputs"]
) -> Float[Array, "n tokens outputs"]:
    """PyTorch's linear layer; it has a bias where there is one."""
    y = jnp.einsum("nti,oi->nto", x, weights[f"{name}.weight"].astype(jnp.float32))
    return y + vector(weights, f"{name}.bias") if f"{name}.bias" in weights else y


def attention(
    query: Float[Array, "n tokens inner"],
    key: Float[Array, "n tokens inner"],
    value: Float[Array, "n tokens inner"],
    mask: Bool[Array, "n tokens"],
    *,
    heads: int,
    scale: float,
    bias: Float[Array, "heads tokens tokens"] | None = None,
) -> Float[Array, "n tokens inner"]:
    """Every token looks at those that are not padding.

    Args:
        query: of every token, all heads.
        key: the same.
        value: the same.
        mask: which tokens are looked at. Where there is none, the result is finite and means
            nothing.
        heads: number of heads.
        scale: factor of the inner products.
        bias: added to them, by head, looking token and token looked at.

    Returns:
        The mixed values.
    """
    shape = (*query.shape[:2], heads, -1)
    query, key, value = (x.reshape(shape) for x in (query, key, value))
    logits = scale * jnp.einsum("nqhd,nkhd->nhqk", query, key)
    if bias is not None:
        logits = logits + bias[None]
    # Not minus infinity, of which a caption without tokens would make NaN.
    logits = jnp.where(mask[:, None, None, :], logits, jnp.finfo(logits.dtype).min)
    mixed = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(logits, axis=-1), value)
    return mixed.reshape(*mixed.shape[:2], -1)
