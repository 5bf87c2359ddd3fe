"""Bad input from the command line: one line, exit code 2, nothing written, before long work."""

import hashlib
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from smcdiff.store.shipped import shipped_folder
from tests.cli.inputs import RANDOM, array, damaged, header, picture, pixels, text

IMAGE = RANDOM.uniform(-1, 1, (28, 28))
SHIPPED = shipped_folder() / "mnist"


def with_nan(value):
    values = IMAGE.copy()
    values[3, 3] = value
    return values


IMAGES = {
    "no file": (lambda: "none.png", ["none.png: no such file"]),
    "a folder": (lambda: ".", ["is a folder; give a PNG or .npy file"]),
    "a name too long": (lambda: "a" * 300, ["File name too long"]),
    "wrong shape": (
        lambda: array("a.npy", -np.ones((5, 5))),
        ["(5, 5, 1)", "(28, 28, 1) is needed"],
    ),
    "two channels": (lambda: array("a.npy", -np.ones((28, 28, 2))), ["(28, 28, 2)"]),
    "channels first": (
        lambda: array("a.npy", -np.ones((3, 28, 28))),
        ["(3, 28, 28), but channels come last: (28, 28, 1)", "numpy.moveaxis(image, 0, -1)"],
    ),
    "a transparent alpha": (
        lambda: array("a.npy", np.full((28, 28, 4), 200, np.uint8)),
        ["red, green, blue and an alpha, which is not 255 (opaque) everywhere"],
    ),
    "a transparent alpha of floats": (
        lambda: array("a.npy", np.full((28, 28, 4), 0.5)),
        ["which is not 1 (opaque) everywhere"],
    ),
    "one axis": (lambda: array("a.npy", np.zeros(3)), ["shape (3,)"]),
    "empty": (lambda: array("a.npy", np.zeros((0, 28))), ["shape (0, 28, 1)"]),
    "0 to 255": (lambda: array("a.npy", 200.0 + IMAGE), ["outside [-1, 1]", "--range LOW HIGH"]),
    "0 to 1": (lambda: array("a.npy", np.abs(IMAGE)), ["--range 0 1 or --range -1 1"]),
    "8-bit 0 to 1": (lambda: array("a.npy", (IMAGE > 0).astype(np.uint8)), ["--range 0 255"]),
    "uint16": (lambda: array("a.npy", np.uint16(999 + IMAGE)), ["uint16", "--range 0 65535"]),
    "16-bit PNG": (lambda: picture("a.png", np.uint16(999 + IMAGE)), ["--range 0 65535"]),
    "int": (lambda: array("a.npy", np.full((28, 28), 200)), ["int64", "--range 0 255"]),
    "NaN": (lambda: array("a.npy", with_nan(np.nan)), ["1 values are NaN", "--mask"]),
    "infinity": (lambda: array("a.npy", with_nan(np.inf)), ["1 values are NaN or infinite"]),
    "enormous": (lambda: array("a.npy", with_nan(1e300)), ["1 values are NaN or infinite"]),
    "complex": (lambda: array("a.npy", IMAGE + 0j), ["complex128; give real numbers"]),
    "spans of time": (
        lambda: array("a.npy", np.zeros((28, 28), "timedelta64[s]")),
        ["timedelta64[s]; give real numbers"],
    ),
    "fewer values than the header says": (
        lambda: header("a.npy", "(-28, 28)"),
        ["a.npy: cannot be read"],
    ),
    "more values than memory": (lambda: header("a.npy", "(10**9, 10**9)"), ["cannot be read"]),
    "words": (lambda: array("a.npy", np.full((28, 28), "a")), ["give real numbers"]),
    "objects": (
        lambda: array("a.npy", np.full((28, 28), None)),
        ["it holds no plain arrays", "numpy.save"],
    ),
    "transparent": (
        lambda: picture("a.png", np.zeros((28, 28, 4), np.uint8)),
        ["transparent pixels"],
    ),
    "empty PNG": (lambda: text("a.png", ""), ["cannot be read as a picture"]),
    "empty .npy": (lambda: text("a.npy", ""), ["a.npy: cannot be read", "numpy.save"]),
    "truncated .npy": (
        lambda: damaged("a.npy", array("b.npy", IMAGE), 500),
        ["a.npy: cannot be read"],
    ),
    "truncated PNG": (
        lambda: damaged("a.png", picture("b.png", pixels(28, 28)), 300),
        ["a.png: cannot be read"],
    ),
    "text": (lambda: text("a.txt"), ["a.txt: cannot be read as a picture"]),
}


@pytest.mark.parametrize("case", IMAGES)
def test_images(refused, case):
    make, message = IMAGES[case]
    refused(["solve", "inpaint", make()], *message)


MASKS = {
    "NaN": (lambda: array("m.npy", np.full((28, 28), np.nan)), ["m.npy", "without NaN"]),
    "half": (lambda: array("m.npy", np.full((28, 28), 0.5)), ["0 (hidden) and 1 or 255"]),
    "all masked": (lambda: array("m.npy", np.zeros((28, 28))), ["every pixel is masked"]),
    "complex": (lambda: array("m.npy", np.ones((28, 28), complex)), ["0 (hidden) and 1 or 255"]),
    "words": (lambda: array("m.npy", np.full((28, 28), "1")), ["0 (hidden) and 1 or 255"]),
    "a table": (
        lambda: array("m.npy", np.ones((28, 28), [("a", "f4")])),
        ["0 (hidden) and 1 or 255"],
    ),
    "shape": (lambda: array("m.npy", np.ones((7, 7))), ["mask of shape", "give (28, 28, 1)"]),
    "colours": (lambda: array("m.npy", np.eye(28)[..., None] * np.eye(3)[0]), ["mask of shape"]),
    "a folder": (lambda: ".", ["is a folder"]),
    "no file": (lambda: "none.png", ["no such file"]),
}


@pytest.mark.parametrize("case", MASKS)
def test_masks(refused, case):
    make, message = MASKS[case]
    refused(["solve", "inpaint", "--mask", make()], *message)


OPTIONS = [
    ("--noise 0", "--noise is 0; it must be positive"),
    ("--noise -1", "--noise is -1"),
    ("--noise nan", "--noise is nan"),
    ("--noise inf", "--noise is inf"),
    ("--noise 1e-30", "at least 1e-06"),
    ("--noise 25", "0.196 for 25 of 255 grey levels"),
    ("--noise much", "'--noise'"),
    ("image.npy --range 1 0", "--range 1 0: give two numbers"),
    ("image.npy --range 0 inf", "--range 0 inf"),
    ("image.npy --range 0 1e-320", "are outside [0, 9.99989e-321]"),
    ("image.npy --range 0", "'--range' requires 2 arguments"),
    ("--truth image.npy", "--truth goes with an IMAGE"),
    ("image.npy --truth none.npy", "none.npy: no such file"),
    ("--simulate", "--simulate needs a clean IMAGE"),
    ("--hide middle", "--hide middle: choose from left, right, top, bottom, centre or random"),
    ("--hide random --keep 0", "--keep is 0; it must lie in (0, 1]"),
    ("--width 5", "--width goes with deblur, not with inpaint"),
    ("--prior mnits", "did you mean 'mnist'? Choose from mnist, mnist-classes"),
    ("--prior .", "no config.json"),
    ("--prior image.npy", "is a file; give the folder of a prior"),
    ("--proposal tds", "--proposal tds:"),
    ("--proposal twsted", "did you mean 'twisted'"),
    ("--proposal amortized", "from Python only"),
    ("--proposal moment-matched", "392 observations"),
    ("--particles 0", "num_particles is 0"),
    ("--particles -3", "num_particles is -3"),
    ("--particles 99999999999999999999", "at most 2147483647"),
    ("--particles 1.5", "'--particles'"),
    ("--steps 1", "num_steps is 1; it must be at least 2; a time grid needs at least 2 steps"),
    ("--steps 99999999999999999999", "at most 2147483647"),
    ("--chains 0", "num_chains is 0"),
    ("--batch-size 0", "batch_size is 0"),
    ("--seed -1", "'--seed'"),
    ("--seed 99999999999999999999", "'--seed'"),
    ("--digit 11", "'--digit'"),
    ("--partcles 4", "--particles"),
    ("image.npy another", "unexpected extra argument"),
    ("--output taken", "taken exists; nothing is overwritten"),
    ("--output image.npy", "image.npy: cannot be written"),
    ("--output image.npy/out", "image.npy/out: cannot be written"),
    ("--output /proc/out", "/proc/out: cannot be written"),
]


@pytest.mark.parametrize(("words", "message"), OPTIONS)
def test_options(refused, words, message):
    array("image.npy", IMAGE)
    os.mkdir("taken")
    text("taken/precious")
    refused(["solve", "inpaint", *words.split()], message)


WITHOUT_A_PRIOR = [
    ("inpaint --chains 0", "num_chains is 0"),
    ("inpaint --particles 0", "num_particles is 0"),
    ("inpaint --steps 1", "num_steps is 1"),
    ("inpaint --batch-size 0", "batch_size is 0"),
    ("inpaint --hide random --keep 2", "--keep is 2"),
    ("inpaint --box 0 -1 4 4", "--box 0 -1 4 4: give the first row"),
    ("deblur --width 0", "--width is 0"),
    ("deblur --motion 5 --angle inf", "--angle is inf"),
    ("super-resolve --factor 0", "--factor is 0"),
    ("inpaint --factor 2", "--factor goes with super-resolve"),
]


@pytest.mark.parametrize(("words", "message"), WITHOUT_A_PRIOR)
def test_numbers_are_looked_at_before_the_prior_is_loaded(refused, monkeypatch, words, message):
    monkeypatch.delattr("smcdiff.cli.solve.load_prior")
    refused(["solve", *words.split()], message)


OTHERS = [
    ("solve sharpen", "no problem named 'sharpen'"),
    ("solve inpant", "did you mean 'inpaint'"),
    ("solve", "problem"),
    ("solve deblur --proposal repaint", "RePaint needs an observation of single entries"),
    ("solve colourise", "no colours to mix"),
    ("solve super-resolve --factor 3", "does not divide by 3"),
    ("slove inpaint", "Did you mean 'solve'"),
    ("--vers", "--version"),
    ("sample --number 0", "--number is 0"),
    ("sample --steps 1", "--steps is 1"),
    ("sample --label 3", "this prior knows no classes"),
    ("sample --prior mnist-classes --label 10", "class 10: this prior has the classes 0 to 9"),
    ("sample --prior mnist-classes --label three", "'--label'"),
    ("sample --prior mnist-classes --label 3 --strength nan", "--strength is nan"),
    ("sample --strength 2", "name it with --label"),
    ("sample --solver euler", "choose from ancestral, dpm, ode"),
    ("sample --temperature 0.9", "--temperature needs --solver"),
    ("sample --solver dpm --temperature 0", "--temperature is 0"),
    ("sample --output taken", "taken exists"),
    ("report none.nc", "none.nc: no such file; give a posterior.nc"),
    ("report .", "is a folder"),
    ("report taken/precious", "not a posterior written by smcdiff"),
    ("priors mnist", "unexpected extra argument"),
]


@pytest.mark.parametrize(("words", "message"), OTHERS)
def test_other_commands(refused, words, message):
    os.mkdir("taken")
    text("taken/precious")
    refused(words.split(), message)


def test_observation_far_outside_the_prior(refused):
    array("matrix.npy", RANDOM.normal(size=(3, 784)))
    words = ["solve", "dense", array("y.npy", np.full(3, 1e6)), "--matrix", "matrix.npy"]
    refused(words, "site 'y': observed values lie far outside what the prior can produce")


def copied(**changes):
    shutil.copytree(SHIPPED, "prior")
    file = Path("prior/config.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def weighted(change):
    """Other weights, and their checksum."""
    content = change((SHIPPED / "model.safetensors").read_bytes())
    copied(sha256=hashlib.sha256(content).hexdigest())
    Path("prior/model.safetensors").write_bytes(content)


def examples(labels):
    np.savez("prior/examples.npz", images=np.zeros((3, 28, 28, 1), np.uint8), labels=labels)


def first_as(value):
    def change(content):
        weights = load(content)
        weights[min(weights)] = value(weights[min(weights)])
        return save(weights)

    return change


def without_first(content):
    weights = load(content)
    weights.pop(min(weights))
    return save(weights)


PRIORS = {
    "no network": (lambda: copied(network={}), ["prior/config.json: missing or wrong entry"]),
    "no patch": (lambda: copied(patch=None), ["prior"]),
    "other channels": (
        lambda: copied(event_shape=[28, 28, 3]),
        ["prior: config.json and model.safetensors do not fit"],
    ),
    "no shape": (lambda: copied(event_shape="abc"), ["abc is not a shape"]),
    "other examples": (
        lambda: copied(event_shape=[32, 32, 1]),
        ["the examples of prior have shape (28, 28, 1)", "(32, 32, 1)"],
    ),
    "unknown schedule": (lambda: copied(schedule={"name": "None"}), ["'None'"]),
    "words in the schedule": (lambda: copied(schedule={"name": "Cosine", "t_max": "a"}), ["'a'"]),
    "negative variance": (lambda: copied(data_variance=-1), ["must be positive"]),
    "words for numbers": (lambda: copied(data_norm="a"), ["prior/config.json", "'a'"]),
    "no errors by noise": (lambda: copied(denoising_error={}), ["prior/config.json"]),
    "negative errors by noise": (
        lambda: copied(denoising_error={"0": -1.0, "1": 1.0}),
        ["denoising_error has values", "must be positive"],
    ),
    "words for classes": (
        lambda: [copied(), examples(labels=np.array(list("abc")))],
        ["examples.npz: needs images of uint8 and a whole number for each in labels"],
    ),
    "fewer examples than classes": (
        lambda: [copied(), examples(labels=np.arange(9))],
        ["examples.npz: needs images of uint8"],
    ),
    "another kind": (lambda: copied(kind="classifier"), ["of kind 'classifier'"]),
    "not an object": (lambda: [copied(), text("prior/config.json", "[]")], ["not a JSON object"]),
    "empty": (lambda: [copied(), text("prior/config.json", "")], ["config.json: cannot be read"]),
    "truncated": (lambda: [copied(), text("prior/config.json", "{")], ["cannot be read"]),
    "no config": (lambda: [copied(), os.remove("prior/config.json")], ["no config.json"]),
    "empty weights": (lambda: weighted(lambda _: b""), ["not a safetensors file"]),
    "truncated weights": (lambda: weighted(lambda old: old[:5000]), ["not a safetensors file"]),
    "damaged weights": (
        lambda: [copied(), damaged("prior/model.safetensors", SHIPPED / "model.safetensors", 5000)],
        ["checksum", "truncated or damaged"],
    ),
    "NaN in weights": (lambda: weighted(first_as(lambda w: w * np.nan)), ["no finite floats"]),
    "integer weights": (lambda: weighted(first_as(np.int32)), ["no finite floats"]),
    "weights of another shape": (
        lambda: weighted(first_as(lambda w: w.ravel()[:3])),
        ["prior: config.json and model.safetensors do not fit", "has shape (3,)"],
    ),
    "missing weights": (lambda: weighted(without_first), ["1 parameters are missing"]),
    "empty examples": (lambda: [copied(), text("prior/examples.npz", "")], ["examples.npz"]),
    "examples without images": (
        lambda: [copied(), np.savez("prior/examples.npz", a=np.zeros(3))],
        ["examples.npz: cannot be read"],
    ),
    "no such digit": (
        lambda: [
            copied(),
            examples(labels=np.ones(3, int)),
        ],
        ["--digit 3: the examples of prior are [1]"],
    ),
}


@pytest.mark.parametrize("case", PRIORS)
def test_priors(refused, case):
    make, message = PRIORS[case]
    make()
    refused(["solve", "inpaint", "--prior", "prior"], *message)


@pytest.mark.parametrize("words", [[], ["--solver", "dpm", "--temperature", "1e30"]])
def test_draws_that_are_not_finite(smcdiff, monkeypatch, tmp_path, words):
    monkeypatch.setattr("smcdiff.cli.drawing.interruptible", lambda *_: np.full((2, 1), np.nan))
    code, _, err = smcdiff("sample", "--number", "2", *words)
    assert code == 2 and "draws are NaN or infinite" in err
    assert not list(tmp_path.iterdir())


def test_a_terminal_that_knows_no_letters(smcdiff, monkeypatch):
    """Neither accents nor bytes that are no text end a run after its work is done."""
    monkeypatch.setattr("smcdiff.cli.sample.draw_all", lambda *_: np.zeros((2, 28, 28, 1)))
    for name, encoding in (("\xe9", "ascii"), ("\udcff", "utf-8")):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr("sys.stdout", stream)
        code, _, err = smcdiff("sample", "--number", "2", "-o", name)
        assert code == 0, err
        stream.flush()
        assert b"2 draws of shape" in stream.buffer.getvalue()


def test_memory_that_is_not_there(smcdiff, monkeypatch, tmp_path):
    def fail(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")

    monkeypatch.setattr("smcdiff.cli.solve.interruptible", fail)
    code, _, err = smcdiff("solve", "inpaint")
    assert code == 2 and "out of memory; fewer particles" in err
    assert not list(tmp_path.iterdir())
