"""BERT's encoder (Devlin et al. 2019), as MiniLM and other sentence encoders use it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from smcdiff.text._layers import ACTIVATIONS, Weights, attention, linear, rows, vector
from smcdiff.text._settings import Settings

_OTHER_PARTS = ("pooler.", "cls.")
"""The pooler of next-sentence prediction and the head of masked words: no part of the encoder."""
_OLD_ENDS = {"gamma": "weight", "beta": "bias"}
"""How files that came from TensorFlow name layer norms."""


@dataclasses.dataclass(frozen=True)
class Bert:
    """Sizes of a BERT; see `smcdiff.text._architecture.Architecture`.

    Attributes:
        vocabulary: tokens.
        width: of the states.
        positions: most tokens of a caption.
        types: rows of the token types, of which the first is used.
        layers: their number.
        heads: of attention.
        inner: width of the feed-forward layers.
        activation: theirs.
        epsilon: of the layer norms.
    """

    vocabulary: int
    width: int
    positions: int
    types: int
    layers: int
    heads: int
    inner: int
    activation: str
    epsilon: float

    @classmethod
    def read(cls, settings: Settings) -> Bert:
        """From config.json, whose names are those of transformers' ``BertConfig``."""
        settings.choice("position_embedding_type", ["absolute"], "absolute")
        if settings.flag("is_decoder", False):
            raise settings.wrong("is_decoder", "makes a decoder of it, which looks back only")
        width, heads = settings.count("hidden_size"), settings.count("num_attention_heads")
        if width % heads:
            raise settings.wrong("num_attention_heads", f"does not divide hidden_size, {width}")
        return cls(
            vocabulary=settings.count("vocab_size"),
            width=width,
            positions=settings.count("max_position_embeddings"),
            types=settings.count("type_vocab_size", 2),
            layers=settings.count("num_hidden_layers"),
            heads=heads,
            inner=settings.count("intermediate_size"),
            activation=settings.choice("hidden_act", ACTIVATIONS, "gelu"),
            epsilon=settings.number("layer_norm_eps", 1e-12),
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all weights, by name."""
        width, inner = self.width, self.inner
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (self.vocabulary, width),
            "embeddings.position_embeddings.weight": (self.positions, width),
            "embeddings.token_type_embeddings.weight": (self.types, width),
        }
        norms = ["embeddings.LayerNorm"]
        for layer in map(_layer, range(self.layers)):
            linears = {f"attention.self.{name}": (width, width) for name in _PROJECTIONS}
            linears |= {
                "attention.output.dense": (width, width),
                "intermediate.dense": (inner, width),
                "output.dense": (width, inner),
            }
            for name, shape in linears.items():
                shapes[f"{layer}.{name}.weight"] = shape
                shapes[f"{layer}.{name}.bias"] = shape[:1]
            norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        for norm in norms:
            shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
        return shapes

    def own_name(self, name: str) -> str | None:
        """The name in `shapes`: files of whole models begin it with ``bert.``."""
        name = name.removeprefix("bert.")
        if name.startswith(_OTHER_PARTS) or name == "embeddings.position_ids":
            return None
        start, _, end = name.rpartition(".")
        return f"{start}.{_OLD_ENDS[end]}" if end in _OLD_ENDS else name

    def __call__(
        self, weights: Weights, ids: Int[Array, "n tokens"], mask: Bool[Array, "n tokens"]
    ) -> Float[Array, "n tokens width"]:
        """The last hidden states."""
        x = rows(weights, "embeddings.word_embeddings.weight", ids)
        positions = jnp.arange(ids.shape[1])[None]
        x = x + rows(weights, "embeddings.position_embeddings.weight", positions)
        x = x + rows(weights, "embeddings.token_type_embeddings.weight", jnp.zeros((1, 1), int))
        x = self._norm(weights, "embeddings.LayerNorm", x)
        for layer in map(_layer, range(self.layers)):
            query, key, value = (
                linear(weights, f"{layer}.attention.self.{name}", x) for name in _PROJECTIONS
            )
            scale = (self.width // self.heads) ** -0.5
            mixed = attention(query, key, value, mask, heads=self.heads, scale=scale)
            mixed = linear(weights, f"{layer}.attention.output.dense", mixed)
            x = self._norm(weights, f"{layer}.attention.output.LayerNorm", x + mixed)
            hidden = linear(weights, f"{layer}.intermediate.dense", x)
            hidden = linear(weights, f"{layer}.output.dense", ACTIVATIONS[self.activation](hidden))
            x = self._norm(weights, f"{layer}.output.LayerNorm", x + hidden)
        return x

    def _norm(self, weights: Weights, name: str, x: Array) -> Array:
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + self.epsilon)
        return x * vector(weights, f"{name}.weight") + vector(weights, f"{name}.bias")


_PROJECTIONS = ("query", "key", "value")


def _layer(index: int) -> str:
    return f"encoder.layer.{index}"
