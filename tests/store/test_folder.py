"""`docs/model-folder.md` against folders that were written, those that ship among them."""

import dataclasses
import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from smcdiff import save_prior, schedules
from smcdiff.networks._classifier import NoisyClassifier
from smcdiff.networks.unet import UNet2DConfig
from smcdiff.networks.unet_condition import UNet2DConditionConfig
from smcdiff.store._network_functions import NetworkClassifier
from smcdiff.store.amortized import save_conditional
from smcdiff.store.classifier import save_classifier
from smcdiff.store.twist import save_twist
from smcdiff.training import TrainConfig
from tests.store.priors import (
    SHAPE,
    Shrink,
    conditional_network,
    own_prior,
    twist_network,
    unet_prior,
)
from tests.store.text_priors import text_prior

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "model-folder.md").read_text()
SECTIONS = {
    "prior": "### A prior", "classifier": "### A classifier", "conditional": "### An amortised",
    "twist": "### A twist",
}  # fmt: skip
PREFIXES = {"twist": "encoder."}


def section(heading):
    """The text from a heading to the next."""
    return re.split(r"\n#", PAGE.split(heading, 1)[1], maxsplit=1)[0]


def documented(kind):
    """Keys of config.json, with what the page says of when they are there."""
    rows = section("### Every kind") + section(SECTIONS[kind])
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", rows, flags=re.MULTILINE))


def keys_in(heading):
    """Keys in the table under a heading."""
    return set(re.findall(r"^\| `(\w+)` \|", section(heading), re.M))


def written_prior(folder):
    return save_prior(unet_prior(num_classes=2).given(1), folder)


def written_own_prior(folder):
    return save_prior(own_prior(Shrink(np.zeros(4), 1.0)), folder)


def written_classifier(folder):
    config = TrainConfig(channels=(16,), patch=1).network(SHAPE)
    network = nnx.jit(lambda: NoisyClassifier(config, 1, 3, rngs=nnx.Rngs(0)))()
    graph, state = nnx.split(network)
    return save_classifier(NetworkClassifier(state, schedules.Cosine(), graph), folder, "", {})


def written_conditional(folder, given=False):
    learned = conditional_network()
    if given:
        return save_prior(learned.given(jnp.zeros(3)), folder)
    return save_conditional(learned, folder, "", {})


def written_twist(folder, event=SHAPE):
    return save_twist(twist_network(event, (3,)), folder, "", {})


def written_text_prior(folder, given=False):
    prior = text_prior()
    return save_prior(prior.given("a red square", 2.0) if given else prior, folder)


FOLDERS = {
    "prior": written_prior,
    "of captions": written_text_prior,
    "given a caption": lambda folder: written_text_prior(folder, given=True),
    "own prior": written_own_prior,
    "classifier": written_classifier,
    "conditional": written_conditional,
    "given an observation": lambda folder: written_conditional(folder, given=True),
    "twist": written_twist,
    "twist of vectors": lambda folder: written_twist(folder, (2,)),
    "shipped": lambda _: ROOT / "models" / "mnist",
    "shipped with classes": lambda _: ROOT / "models" / "mnist-classes",
    "shipped classifier": lambda _: ROOT / "experiments" / "guidance" / "classifier",
}


@pytest.mark.parametrize("case", FOLDERS)
def test_the_page_describes_the_folder(tmp_path, case):
    folder = FOLDERS[case](tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    keys = documented(config.get("kind", "prior"))
    assert not set(config) - set(keys)
    always = {key for key, when in keys.items() if when.startswith("always")}
    of_vectors = config.get("kind") == "twist" and "network" not in config
    always -= {"network"} if "denoiser" in config or of_vectors else set()
    always -= {"schedule"} if config.get("kind") == "twist" else set()
    always -= {"event_shape"} if config.get("kind") == "classifier" else set()
    assert always <= set(config)
    if not case.startswith("shipped"):
        assert {key for key, when in keys.items() if when == "written"} <= set(config)
        assert ("patch" in config) == ("network" in config)
    names = load_file(folder / "model.safetensors")
    is_given = "label" in config or "text.mask" in names
    assert case.startswith("shipped") or ("strength" in config) == is_given
    if "denoiser" in config:
        assert set(names) == {".gain", ".power"}
        return
    # Every first part of a name is on the page.
    prefix = PREFIXES.get(config.get("kind"), "net.unet." if "observation_shape" in config else "")
    known = set(re.findall(r"(?<=[`.])\w+(?=[.`])", section("## model.safetensors")))
    assert {name.removeprefix(prefix).split(".")[0] for name in names} <= known
    if of_vectors:
        return
    fields = {field.name for field in dataclasses.fields(UNet2DConfig)}
    described = keys_in("### The network")
    assert described == fields
    if "text" in config:
        fields = {field.name for field in dataclasses.fields(UNet2DConditionConfig)}
        described |= keys_in("### The text-conditional network")
        assert set(config["text"]) == keys_in("### Captions")
    assert set(config["network"]) == described == fields
    # The convolution's layout is as the page says.
    network = config["network"]
    assert names[f"{prefix}conv_in.weight"].shape == (
        network["block_out_channels"][0], network["in_channels"], 3, 3,
    )  # fmt: skip


def test_the_examples_of_the_page_are_real(tmp_path):
    names = load_file(written_prior(tmp_path / "prior") / "model.safetensors")
    row = re.search(r"^\| prior \| (.*) \|$", section("## model.safetensors"), re.M)
    examples = re.findall(r"`([\w.]+)`", row.group(1))
    assert len(examples) == 8 and set(examples) <= set(names)
    names = load_file(written_classifier(tmp_path / "classifier") / "model.safetensors")
    row = re.search(r"^\| classifier \| (.*) \|$", section("## model.safetensors"), re.M)
    assert set(re.findall(r"`([\w.]+)`", row.group(1))) <= set(names)


def test_the_checksum_of_the_page(copy):
    code = re.findall(r"```python\n(.*?)```", section("## The checksum"), flags=re.DOTALL)[0]
    names = {}
    exec(code, names)
    assert names["is_whole"](copy)
    with (copy / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    assert not names["is_whole"](copy)
