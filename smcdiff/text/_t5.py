"""T5's encoder (Raffel et al. 2020), and that of T5 1.1, whose feed-forward layers are gated.

It is a transformer with a few ways of its own: inner products are not scaled by 1/sqrt(d); what a
head adds to them depends on the distance of two tokens, by a table that block 0 has and all blocks
share; norms divide by the root mean square, without mean or bias; no layer has a bias.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from smcdiff.text._layers import ACTIVATIONS, Weights, attention, linear, rows, vector
from smcdiff.text._settings import Settings

_FEED_FORWARD = {
    "relu": (False, "relu"),
    "gated-gelu": (True, "gelu_new"),  # by tanh, whatever the name says
    "gated-silu": (True, "silu"),
}
"""Whether it is gated, and its activation, by the name in config.json."""
_WORDS = "shared.weight"
_SAME_WORDS = "encoder.embed_tokens.weight"
_DISTANCES = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
_OTHER_PARTS = ("decoder.", "lm_head.")


@dataclasses.dataclass(frozen=True)
class T5:
    """Sizes of a T5 encoder; see `smcdiff.text._architecture.Architecture`.

    Attributes:
        vocabulary: tokens.
        width: of the states.
        layers: number of blocks.
        heads: of attention.
        head_width: of one head; together they may be wider or narrower than the states.
        inner: width of the feed-forward layers.
        feed_forward: their kind, as config.json names it.
        buckets: of distances between tokens, both directions together.
        max_distance: distances beyond it share the last bucket.
        epsilon: of the norms.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    head_width: int
    inner: int
    feed_forward: str
    buckets: int
    max_distance: int
    epsilon: float

    @property
    def positions(self) -> None:
        """Any number of tokens has positions: only distances count."""
        return None

    @classmethod
    def read(cls, settings: Settings) -> T5:
        """From config.json, whose names are those of transformers' ``T5Config``."""
        buckets = settings.count("relative_attention_num_buckets", 32)
        distance = settings.count("relative_attention_max_distance", 128)
        if buckets % 4 or distance <= buckets // 4:
            raise settings.wrong(
                "relative_attention_num_buckets",
                f"is not divisible by 4, or too large for the greatest distance, {distance}",
            )
        return cls(
            vocabulary=settings.count("vocab_size"),
            width=settings.count("d_model"),
            layers=settings.count("num_layers"),
            heads=settings.count("num_heads"),
            head_width=settings.count("d_kv"),
            inner=settings.count("d_ff"),
            feed_forward=settings.choice("feed_forward_proj", _FEED_FORWARD, "relu"),
            buckets=buckets,
            max_distance=distance,
            epsilon=settings.number("layer_norm_epsilon", 1e-6),
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all weights, by name."""
        width, inner, attended = self.width, self.inner, self.heads * self.head_width
        is_gated, _ = _FEED_FORWARD[self.feed_forward]
        shapes: dict[str, tuple[int, ...]] = {
            _WORDS: (self.vocabulary, width),
            _DISTANCES: (self.buckets, self.heads),
            "encoder.final_layer_norm.weight": (width,),
        }
        for index in range(self.layers):
            attends, feeds = _layer(index, 0), _layer(index, 1)
            shapes |= {f"{_projection(index, name)}.weight": (attended, width) for name in "qkv"}
            shapes[f"{_projection(index, 'o')}.weight"] = (width, attended)
            for name in ("wi_0", "wi_1") if is_gated else ("wi",):
                shapes[f"{feeds}.DenseReluDense.{name}.weight"] = (inner, width)
            shapes[f"{feeds}.DenseReluDense.wo.weight"] = (width, inner)
            shapes |= {f"{layer}.layer_norm.weight": (width,) for layer in (attends, feeds)}
        return shapes

    def own_name(self, name: str) -> str | None:
        """The name in `shapes`; the embedding of words has two, of which a file may have both."""
        if name.startswith(_OTHER_PARTS):
            return None
        return _WORDS if name == _SAME_WORDS else name

    def __call__(
        self, weights: Weights, ids: Int[Array, "n tokens"], mask: Bool[Array, "n tokens"]
    ) -> Float[Array, "n tokens width"]:
        """The last hidden states."""
        x = rows(weights, _WORDS, ids)
        buckets = jnp.asarray(self.distance_buckets(ids.shape[1]))
        bias = rows(weights, _DISTANCES, buckets).transpose(2, 0, 1)
        for index in range(self.layers):
            seen = self._norm(weights, f"{_layer(index, 0)}.layer_norm.weight", x)
            query, key, value = (linear(weights, _projection(index, name), seen) for name in "qkv")
            mixed = attention(query, key, value, mask, heads=self.heads, scale=1.0, bias=bias)
            x = x + linear(weights, _projection(index, "o"), mixed)
            seen = self._norm(weights, f"{_layer(index, 1)}.layer_norm.weight", x)
            x = x + self._feed_forward(weights, f"{_layer(index, 1)}.DenseReluDense", seen)
        return self._norm(weights, "encoder.final_layer_norm.weight", x)

    def _feed_forward(self, weights: Weights, name: str, x: Array) -> Array:
        is_gated, activation = _FEED_FORWARD[self.feed_forward]
        hidden = ACTIVATIONS[activation](
            linear(weights, f"{name}.{'wi_0' if is_gated else 'wi'}", x)
        )
        if is_gated:
            hidden = hidden * linear(weights, f"{name}.wi_1", x)
        return linear(weights, f"{name}.wo", hidden)

    def _norm(self, weights: Weights, name: str, x: Array) -> Array:
        square = jnp.mean(x**2, axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(square + self.epsilon) * vector(weights, name)

    def distance_buckets(self, tokens: int) -> Int[np.ndarray, "tokens tokens"]:
        """The row of the table of distances, by the token that looks and the one looked at.

        Half of the buckets are for tokens before and half for those after; in each half, the first
        half holds one distance each, and the others distances on a logarithmic scale.
        """
        positions = np.arange(tokens)
        ahead = positions[None] - positions[:, None]
        half = self.buckets // 2
        exact = half // 2
        distance = np.abs(ahead)
        # In single precision, as transformers has it: at the edge of a bucket it could differ.
        ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
        scaled = ratio / np.float32(math.log(self.max_distance / exact)) * np.float32(half - exact)
        coarse = np.minimum(exact + np.trunc(scaled).astype(int), half - 1)
        return np.where(distance < exact, distance, coarse) + half * (ahead > 0)


def _layer(block: int, index: int) -> str:
    return f"encoder.block.{block}.layer.{index}"


def _projection(block: int, name: str) -> str:
    return f"{_layer(block, 0)}.SelfAttention.{name}"
