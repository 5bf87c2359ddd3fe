"""Priors are written whole, load to the same bits, and damaged folders are refused by name."""

import hashlib
import json
import os
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import InputError, load_prior, priors, save_prior, schedules, thresholding
from tests.store.priors import (
    SHAPE,
    Perceptron,
    Shrink,
    conditional_network,
    linear,
    own_prior,
    unet_prior,
)

X = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), jnp.float32)


def edit(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def same_bits(first, second):
    a, b = jax.tree.leaves(first), jax.tree.leaves(second)
    return len(a) == len(b) and all(
        np.asarray(x).dtype == np.asarray(y).dtype and np.array_equal(x, y)
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.slow
def test_a_network_of_the_package_is_written_whole(tmp_path):
    prior = unet_prior()
    folder = save_prior(prior, tmp_path / "prior", about={"licence": "none"})
    assert {file.name for file in folder.iterdir()} == {
        "config.json", "model.safetensors", "card.md",
    }  # fmt: skip
    loaded = load_prior(folder)
    assert same_bits(prior, loaded)
    assert (loaded.event_shape, loaded.num_steps) == (SHAPE, 7)
    assert np.array_equal(loaded.denoise(X, 0.5), prior.denoise(X, 0.5))
    assert "(4, 4, 1)" in (folder / "card.md").read_text()
    with pytest.raises(InputError, match="nothing is overwritten"):
        save_prior(prior, folder)
    with pytest.raises(InputError, match="leave denoiser= out"):
        load_prior(folder, denoiser=lambda x, t: x)


@pytest.mark.slow
def test_float16_is_written_where_it_loses_nothing(tmp_path):
    prior = unet_prior()
    rounded = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float16).astype(jnp.float32), prior)
    folders = [save_prior(p, tmp_path / name) for p, name in ((prior, "whole"), (rounded, "half"))]
    whole, half = ((folder / "model.safetensors").stat().st_size for folder in folders)
    assert half < 0.6 * whole  # both have a header of the same length
    assert same_bits(rounded.denoiser.state, load_prior(folders[1]).denoiser.state)


@pytest.mark.slow
def test_the_class_that_was_asked_for_is_written_too(tmp_path):
    prior = unet_prior(num_classes=2)
    cases = {"none": prior, "class": prior.given(1), "guided": prior.given(0, 2.5)}
    outputs = []
    for name, case in cases.items():
        loaded = load_prior(save_prior(case, tmp_path / name))
        outputs.append(loaded.denoise(X, 0.5))
        assert np.array_equal(outputs[-1], case.denoise(X, 0.5))
    assert not np.array_equal(outputs[0], outputs[1])
    loaded = load_prior(tmp_path / "class").given(0)  # and another one may be asked for
    assert np.array_equal(loaded.denoise(X, 0.5), prior.given(0).denoise(X, 0.5))


def test_a_network_that_was_given_its_observation(tmp_path):
    learned = conditional_network()
    prior = learned.given(jnp.array([1.0, -1.0, 0.3]))
    loaded = load_prior(save_prior(prior, tmp_path / "prior"))
    assert same_bits(prior, loaded)
    assert np.array_equal(loaded.denoise(X, 0.5), prior.denoise(X, 0.5))


FOREIGN = {
    "a Module": (Shrink(jnp.arange(4.0), 2.5), Shrink(jnp.zeros(4), 1.0)),
    "equinox": (Perceptron(3, seed=1), Perceptron(3, seed=2)),
    "a partial function": tuple(
        jax.tree_util.Partial(linear, {"w": w * jnp.ones((4, 4)), "b": jnp.full(4, w)})
        for w in (1.0, 0.0)
    ),
    "a function": (jnp.sin, jnp.sin),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_of_a_foreign_denoiser_the_arrays_are_written(tmp_path, case):
    denoiser, template = FOREIGN[case]
    call = (lambda x, t: denoiser(x)) if case == "a function" else denoiser
    prior = own_prior(call)
    folder = save_prior(prior, tmp_path / "prior")
    with pytest.raises(InputError, match=r"not its code; build one like it: load_prior\(folder, "):
        load_prior(folder)
    loaded = load_prior(folder, denoiser=call if case == "a function" else template)
    assert same_bits(prior, loaded)
    x, t = jnp.arange(4.0), jnp.float32(0.5)
    assert np.array_equal(loaded.denoise(x, t), prior.denoise(x, t))


def _same(x, t):
    return x


@pytest.mark.parametrize("threshold", [None, thresholding.Static(2.0), thresholding.Dynamic(0.9)])
def test_thresholds(tmp_path, threshold):
    prior = own_prior(_same, threshold=threshold)
    loaded = load_prior(save_prior(prior, tmp_path / "prior"), denoiser=_same)
    assert loaded.threshold == threshold


def test_a_template_that_does_not_fit(tmp_path):
    folder = save_prior(own_prior(Perceptron(3, seed=1)), tmp_path / "prior")
    for template, message in (
        (Perceptron(2, seed=1), r"'.first.bias' is float32\[2\], and in the folder float32\[3\]"),
        (Shrink(jnp.zeros(4), 1.0), r"'.first.bias' is missing, and in the folder float32\[3\]"),
        (lambda x, t: x, "'.first.bias' is missing"),
    ):
        with pytest.raises(InputError, match=f"prior: the denoiser does not fit: its {message}"):
            load_prior(folder, denoiser=template)


def test_what_cannot_be_written(tmp_path):
    class Warped(schedules.Cosine):
        """A schedule of somebody else's."""

    with pytest.raises(InputError, match="the schedule is a Warped, which could not be read again"):
        save_prior(unet_prior(schedule=Warped()), tmp_path / "prior")

    class Odd(priors.VPrediction):
        """A prediction of somebody else's."""

    with pytest.raises(InputError, match="the prediction is a Odd"):
        save_prior(unet_prior(prediction=Odd()), tmp_path / "prior")

    def keyed(key, x, t):
        return x + jax.random.normal(key, x.shape)

    prior = own_prior(jax.tree_util.Partial(keyed, jax.random.key(0)))
    with pytest.raises(InputError, match="is a random key; store jax.random.key_data"):
        save_prior(prior, tmp_path / "prior")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: cannot be written"):
        save_prior(unet_prior(), tmp_path / "file")


def test_files_have_the_mode_that_new_files_have(tmp_path):
    before = os.umask(0o027)
    try:
        folder = save_prior(unet_prior(), tmp_path / "prior")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o640}


def test_half_a_model_is_not_left(tmp_path, monkeypatch):
    from smcdiff.store import _folder as folders

    write = folders.write_whole

    def full(path, content):
        if path.name == "config.json":
            raise InputError(f"{path}: cannot be written (No space left on device)")
        write(path, content)

    monkeypatch.setattr(folders, "write_whole", full)
    with pytest.raises(InputError, match="No space left"):
        save_prior(unet_prior(), tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_names_of_files_that_are_no_text(tmp_path):
    folder = save_prior(unet_prior(), tmp_path / "prior", card="of \udcff", about={"a": "\udcff"})
    assert (folder / "card.md").read_bytes() == b"of \xff"
    assert load_prior(folder).event_shape == SHAPE


def test_damaged_weights(copy):
    file = copy / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:5000])
    with pytest.raises(InputError, match="truncated or damaged"):
        load_prior(copy)
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match="truncated or damaged"):
        load_prior(copy)
    edit(copy, sha256=hashlib.sha256(b"no weights").hexdigest())
    file.write_bytes(b"no weights")
    with pytest.raises(InputError, match="not a safetensors file"):
        load_prior(copy)
    file.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read"):
        load_prior(copy)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction": "w"}, r"missing or wrong entry \(KeyError: 'w'\)"),
        ({"prediction": {"name": "v", "sigma": 1}}, "TypeError"),
        ({"schedule": "Cosine"}, "TypeError"),
        ({"schedule": {"name": "Cosine", "t_max": None}}, "None is not"),
        ({"schedule": {"name": "Cosine", "t_max": float("nan")}}, "raise the schedule's t_max"),
        ({"schedule": {"name": "_LogSNR"}}, "KeyError"),
        ({"denoising_error": {"a": 1.0}}, "ValueError"),
        ({"data_variance": float("inf")}, "data_variance must be positive"),
        ({"num_steps": "many"}, "num_steps"),
        ({"event_shape": [28, 28, 0]}, "is not a shape"),
        ({"kind": "classifier"}, "of kind 'classifier', not 'prior'"),
    ],
)
def test_damaged_configuration(copy, changes, message):
    edit(copy, **changes)
    with pytest.raises(InputError, match=message):
        load_prior(copy)


def test_configuration_that_is_no_object(copy):
    for text in ("{", "[]", "[" * 100_000, "\xff"):
        (copy / "config.json").write_text(text, encoding="latin-1")
        with pytest.raises(InputError, match=r"config\.json: cannot be read"):
            load_prior(copy)
