"""`load_text_encoder`: what folders may look like, and what is said of those that are wrong."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from smcdiff import InputError, load_text_encoder
from smcdiff.text._layers import ACTIVATIONS
from tests.text.folders import CAPTIONS, copied, edit_json, edit_weights

EMBEDDED = "encoder.embed_tokens.weight"
NORM = "encoder.layer.0.output.LayerNorm"


def same(folder, encoder):
    """Whether a folder's encoder does what another does, bit for bit."""
    found, expected = (e.encode(CAPTIONS[:1]) for e in (load_text_encoder(folder), encoder))
    return np.array_equal(found.states, expected.states)


def renamed(tensors, change):
    for name in list(tensors):
        tensors[change(name)] = tensors.pop(name)


def test_names_of_whole_models_and_of_old_files(encoders, tmp_path):
    """BertForMaskedLM's file, and a layer norm as TensorFlow called it."""
    folder = copied("bert", tmp_path)

    def edit(tensors):
        renamed(tensors, lambda name: f"bert.{name}")
        tensors[f"bert.{NORM}.gamma"] = tensors.pop(f"bert.{NORM}.weight")
        tensors[f"bert.{NORM}.beta"] = tensors.pop(f"bert.{NORM}.bias")
        tensors["cls.predictions.bias"] = np.zeros(96, np.float32)
        tensors["bert.embeddings.position_ids"] = np.arange(64)[None]

    edit_weights(folder, edit)
    assert same(folder, encoders["bert"])


@pytest.mark.parametrize("both", [True, False])
def test_words_of_t5_have_two_names(encoders, tmp_path, both):
    """A file may have ``shared.weight`` alone (the reference), the other name alone, or both."""
    folder = copied("t5_relu", tmp_path)

    def edit(tensors):
        tensors[EMBEDDED] = tensors["shared.weight"] if both else tensors.pop("shared.weight")

    edit_weights(folder, edit)
    assert same(folder, encoders["t5_relu"])


def test_words_of_t5_that_differ_are_refused(tmp_path):
    folder = copied("t5_relu", tmp_path)
    edit_weights(folder, lambda tensors: tensors.update({EMBEDDED: tensors["shared.weight"] + 1}))
    with pytest.raises(InputError, match=r"'shared.weight' is there under another name, too"):
        load_text_encoder(folder)


def test_shards_are_the_one_file(encoders, tmp_path):
    """Weights of half the model each, in two files, and an index."""
    folder = copied("bert", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    places = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for part in set(places.values()):
        save_file({n: tensors[n] for n in tensors if places[n] == part}, folder / part)
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert same(folder, encoders["bert"])

    (folder / "part-1.safetensors").unlink()
    with pytest.raises(InputError, match=r"part-1\.safetensors: no such file; give all shards"):
        load_text_encoder(folder)
    for wrong in ("../part-0.safetensors", 3):
        index.write_text(json.dumps({"weight_map": {"a": wrong}}))
        with pytest.raises(InputError, match="which is no file of the folder"):
            load_text_encoder(folder)
    index.write_text("{}")
    with pytest.raises(InputError, match="'weight_map', None, names no files"):
        load_text_encoder(folder)


def test_pooling_is_what_the_folder_says(encoders, tmp_path):
    folder = copied("bert", tmp_path)
    states = encoders["bert"].encode(CAPTIONS).states
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:2]))
    pooled = load_text_encoder(folder).encode(CAPTIONS).pooled
    assert abs(np.linalg.norm(pooled[0]) - 1.0) > 0.01
    edit_json(
        folder / "1_Pooling" / "config.json",
        pooling_mode_cls_token=True,
        pooling_mode_mean_tokens=False,
    )
    first = load_text_encoder(folder)
    np.testing.assert_array_equal(first.encode(CAPTIONS).pooled, states[:, 0])
    assert first.identity.weights == encoders["bert"].identity.weights
    assert first.identity.config != encoders["bert"].identity.config

    edit_json(folder / "1_Pooling" / "config.json", pooling_mode_max_tokens=True)
    with pytest.raises(InputError, match="pools by cls_token, max_tokens, which is not implem"):
        load_text_encoder(folder)
    modules.append({"type": "sentence_transformers.models.Dense", "path": "3_Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match="has a module Dense, which is not implemented"):
        load_text_encoder(folder)
    (folder / "modules.json").write_text("[3]")
    with pytest.raises(InputError, match="is no list of modules"):
        load_text_encoder(folder)


def test_lower_case_and_limits_of_the_folder(encoders, tmp_path):
    folder = copied("t5_relu", tmp_path)
    shouted = load_text_encoder(folder).encode(["TWO RED"]).states
    limits = {"max_seq_length": 20, "do_lower_case": True}
    (folder / "sentence_bert_config.json").write_text(json.dumps(limits))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1e30}))
    encoder = load_text_encoder(folder)
    assert encoder.max_tokens == 20
    lowered = encoder.encode(["TWO RED"])
    np.testing.assert_array_equal(lowered.states, encoders["t5_relu"].encode(["two red"]).states)
    assert shouted.shape != lowered.states.shape
    edit_json(folder / "tokenizer_config.json", model_max_length=12)
    assert load_text_encoder(folder).max_tokens == 12


def test_identity(encoders, tmp_path):
    """Another folder, and entries that are not read, make no other encoder; weights do."""
    folder = copied("bert", tmp_path)
    edit_json(folder / "config.json", transformers_version="9.9", use_cache=False)
    ours, theirs = encoders["bert"].identity, load_text_encoder(folder).identity
    assert ours == theirs
    edit_weights(folder, lambda tensors: tensors[f"{NORM}.bias"].__iadd__(1e-3))
    other = load_text_encoder(folder).identity
    assert other.weights != ours.weights and other.config == ours.config
    with pytest.raises(
        InputError, match="shapes: made with the text encoder 'bert'.*: weights dif"
    ):
        ours.require(other, "shapes")


def test_names_that_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no text encoder named 'minilmm'; did you mean 'minilm'"):
        load_text_encoder("minilmm")
    with pytest.raises(InputError, match="no text encoder named ''"):
        load_text_encoder("")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file; give the folder"):
        load_text_encoder("file")
    with pytest.raises(InputError, match="cannot be read"):
        load_text_encoder("a" * 5000)


@pytest.mark.parametrize(
    ("name", "message"),
    [("config.json", r"config\.json: no such file; give the folder of a Hugging Face model"),
     ("tokenizer.json", r"tokenizer\.json: no such file; give the folder of a model with"),
     ("model.safetensors", r"has neither model\.safetensors nor model\.safetensors\.index\.json")],
)  # fmt: skip
def test_files_that_are_missing(tmp_path, name, message):
    folder = copied("bert", tmp_path)
    (folder / name).unlink()
    with pytest.raises(InputError, match=message):
        load_text_encoder(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_files_that_are_damaged(tmp_path, name):
    folder = copied("bert", tmp_path)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=f"{name}: (cannot be read|not a whole safetensors file)"):
        load_text_encoder(folder)


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [("bert", "model_type", "roberta", "'roberta', is none of those that are read: bert, t5, mt5"),
     ("bert", "model_type", None, "has no 'model_type'"),
     ("bert", "hidden_size", None, "has no 'hidden_size'"),
     ("bert", "hidden_size", "32", "is not a positive whole number"),
     ("bert", "num_attention_heads", 5, "does not divide hidden_size, 32"),
     ("bert", "layer_norm_eps", -1, "is not a positive number"),
     ("bert", "hidden_act", "mish", ", ".join(ACTIVATIONS)),
     ("bert", "is_decoder", True, "makes a decoder of it"),
     ("bert", "is_decoder", 1, "is neither true nor false"),
     ("bert", "position_embedding_type", "relative_key", "are read: absolute"),
     ("bert", "vocab_size", 20, "has tokens up to number 9., and the encoder knows 20"),
     ("bert", "num_hidden_layers", 3, "16 tensors are missing: 'encoder.layer.2.*, ...; config"),
     ("bert", "num_hidden_layers", 1, "16 tensors are unexpected: 'encoder.layer.1.*, ...; conf"),
     ("bert", "intermediate_size", 64, r"has shape \(48,\), and by config.json \(64,\)"),
     ("t5_relu", "feed_forward_proj", "gated-gelu", "4 tensors are missing: .*wi_0.weight"),
     ("t5_relu", "feed_forward_proj", "gelu", "are read: relu, gated-gelu, gated-silu"),
     ("t5_relu", "relative_attention_num_buckets", 30, "is not divisible by 4")],
)  # fmt: skip
def test_settings_that_are_wrong(tmp_path, name, key, value, message):
    folder = copied(name, tmp_path)
    edit_json(folder / "config.json", **{key: value})
    with pytest.raises(InputError, match=message):
        load_text_encoder(folder)


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.full(32, np.nan, np.float32), "has values that are not finite"),
     (np.zeros(32, np.int32), "is of int32; give weights that are floats")],
)  # fmt: skip
def test_weights_that_are_none(tmp_path, value, message):
    folder = copied("bert", tmp_path)
    edit_weights(folder, lambda tensors: tensors.update({f"{NORM}.bias": value}))
    with pytest.raises(InputError, match=f"'{NORM}.bias' {message}"):
        load_text_encoder(folder)


def test_json_that_is_no_object(tmp_path):
    folder = copied("bert", tmp_path)
    (folder / "config.json").write_text("[]")
    with pytest.raises(InputError, match="holds no JSON object"):
        load_text_encoder(folder)
