"""Frozen text encoders: captions as vectors that a network can be told.

`smcdiff.load_text_encoder` reads one, of BERT's or T5's family, from a Hugging Face folder or from
a package by its name. `TextEncoder.encode` gives a `TextEmbedding`, and `EncodedCaptions` keeps
those of many captions in a file.
"""

from smcdiff.text.captions import EncodedCaptions as EncodedCaptions
from smcdiff.text.embedding import TextEmbedding as TextEmbedding
from smcdiff.text.encoder import TextEncoder as TextEncoder
from smcdiff.text.identity import EncoderIdentity as EncoderIdentity
