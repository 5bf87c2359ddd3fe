"""Bad input of ``smcdiff train``: one line, exit code 2, nothing written, before long work."""

import json
import os
import zipfile

import numpy as np
import pytest

from tests.cli.inputs import RANDOM, array, damaged, header, picture, pixels, text


def images(**arrays):
    np.savez("a.npz", **{"images": pixels(200, 8, 8), **arrays})
    return "a.npz"


def archive(name, member):
    """A zip archive with something in the place of an array."""
    with zipfile.ZipFile(name, "w") as file:
        file.writestr(member, b"no array")
    return name


def pictures(*arrays):
    os.mkdir("data")
    for index, values in enumerate(arrays):
        picture(f"data/{index}.png", values)
    return "data"


DATA = {
    "nothing": (lambda: ["none.npz"], ["none.npz: no such file"]),
    "empty folder": (lambda: [pictures()], ["the folder has no PNG files"]),
    "mixed sizes": (
        lambda: [pictures(pixels(8, 8), pixels(9, 8))],
        ["data/1.png: shape (9, 8), but the first is (8, 8)"],
    ),
    "mixed channels": (lambda: [pictures(pixels(8, 8), pixels(8, 8, 3))], ["(8, 8, 3)"]),
    "a broken picture": (
        lambda: [pictures(pixels(8, 8)), text("data/1.png")][:1],
        ["data/1.png: cannot be read as a picture"],
    ),
    "transparent": (lambda: [pictures(0 * pixels(8, 8, 4))], ["transparent pixels"]),
    "16 bit": (lambda: [pictures(np.uint16(pixels(8, 8)))], ["uint16; they must be uint8"]),
    "floats": (lambda: [array("a.npy", RANDOM.normal(size=(200, 8, 8)))], ["must be uint8"]),
    "NaN": (lambda: [array("a.npy", np.full((200, 8, 8), np.nan))], ["must be uint8"]),
    "two axes": (lambda: [array("a.npy", pixels(200, 8))], ["(200, 8)"]),
    "no pixels": (lambda: [array("a.npy", pixels(200, 0, 8))], ["(200, 0, 8, 1)"]),
    "too few": (
        lambda: [array("a.npy", pixels(20, 8, 8))],
        ["too few", "--batch-size of at most 10"],
    ),
    "one image": (lambda: [array("a.npy", pixels(1, 8, 8))], ["one image; give two"]),
    "channels first": (
        lambda: [array("a.npy", pixels(200, 3, 8, 8))],
        ["(200, 3, 8, 8)", "channels come last", "numpy.moveaxis(images, 1, -1)"],
    ),
    "an opaque alpha": (
        lambda: [array("a.npy", np.where(np.arange(4) == 3, np.uint8(255), pixels(200, 8, 8, 4)))],
        ["fourth channel is 255 everywhere", "images[..., :3]"],
    ),
    "odd size": (lambda: [array("a.npy", pixels(200, 7, 8))], ["do not divide by 4"]),
    "all the same": (lambda: [array("a.npy", 0 * pixels(200, 8, 8))], ["all images are the same"]),
    "truncated .npz": (lambda: [damaged("b.npz", images(), 500)], ["b.npz: cannot be read"]),
    "empty .npz": (lambda: [text("b.npz", "")], ["b.npz: cannot be read"]),
    "text as .npz": (lambda: [text("b.npz")], ["it holds no plain arrays"]),
    "text as .npy": (lambda: [text("b.npy")], ["b.npy: cannot be read"]),
    "truncated .npy": (
        lambda: [damaged("b.npy", array("a.npy", pixels(20, 8, 8)), 300)],
        ["b.npy: cannot be read"],
    ),
    "an .npz of no arrays": (lambda: [archive("a.npz", "images.npy")], ["'images' is no array"]),
    "a negative shape": (lambda: [header("a.npy", "(-7, 28, 28)")], ["a.npy: cannot be read"]),
    "an idx file of many axes": (
        lambda: [text("a.idx", "\0\0\x08\x7f" + 127 * "\0\0\0\x01" + "a")],
        ["nor an idx file"],
    ),
    "an idx file that claims more than there is": (
        lambda: [text("a.idx", "\0\0\x08\x03" + 3 * "\x7f\x7f\x7f\x7f")],
        ["does not fit its shape"],
    ),
    "another network to start from": (
        lambda: [images(), "--init", "mnist", "--channels", "16"],
        ["init is mnist, whose network is another", "channels, layers and patch"],
    ),
    "which array": (lambda: [[images(), np.savez("b.npz", a=1, b=2)] and "b.npz"], ["'images'"]),
    "no array": (lambda: [np.savez("b.npz") or "b.npz"], ["arrays []"]),
    "no labels": (lambda: [images(), "--labels"], ["no array 'y_train' or 'labels'"]),
    "labels of .npy": (lambda: [array("a.npy", pixels(200, 8, 8)), "--labels"], ["an .npz"]),
    "few labels": (lambda: [images(labels=np.arange(199)), "--labels"], ["(199,)"]),
    "real labels": (lambda: [images(labels=np.full(200, np.nan)), "--labels"], ["float64"]),
    "one class": (lambda: [images(labels=np.ones(200, int)), "--labels"], ["two or more"]),
    "gaps": (lambda: [images(labels=9 * np.arange(200)), "--labels"], ["without gaps"]),
    "no init": (lambda: [images(), "--init", "mnits"], ["did you mean 'mnist'"]),
}


@pytest.mark.parametrize("case", DATA)
def test_training_data(refused, case):
    make, message = DATA[case]
    refused(["train", *make(), "--output", "out"], *message)


TRAINING = [
    ("--steps 0", "steps is 0"),
    ("--batch-size -1", "batch_size is -1"),
    ("--layers 99999999999999999999", "at most 2147483647"),
    ("--learning-rate nan", "learning_rate is nan"),
    ("--learning-rate 0", "learning_rate is 0.0"),
    ("--ema 1", "ema is 1.0"),
    ("--seed -1", "seed is -1"),
    ("--channels 7", "channels are (7,); give multiples of 8, the last of 16"),
    ("--channels 24", "channels are (24,)"),
    ("--channels 32,", "--channels 32,: give whole numbers"),
    ("--weighting snr", "did you mean 'min-snr'"),
    ("--log-snr-mean nan", "log_snr_mean is nan"),
    ("--weighting lognormal --log-snr-mean 1e30", "it lies in [-20, 20]"),
    ("--weighting lognormal --log-snr-std 1e-300", "it lies in [0.05, 100]"),
    ("--label-dropout 1", "label_dropout is 1.0"),
    ("--stps 3", "--steps"),
    ("--output a.npz", "a.npz: cannot be written"),
    ("--output taken", "taken holds other files; nothing is overwritten"),
    ("--output finished", "finished holds a finished model; nothing is overwritten"),
]


@pytest.mark.parametrize(("words", "message"), TRAINING)
def test_training_options(refused, words, message):
    images()
    for folder, file in (("taken", "card.md"), ("finished", "config.json")):
        os.mkdir(folder)
        text(f"{folder}/{file}")
    output = [] if "--output" in words else ["--output", "out"]
    refused(["train", "a.npz", *words.split(), *output], message)


def captioned(*entries, count=200):
    """A folder of pictures, with captions for them."""
    os.mkdir("data")
    np.save("data/a.npy", pixels(count, 8, 8, 3))
    text("data/captions.json", json.dumps(entries or [f"picture {i % 9}" for i in range(count)]))
    return "data"


CAPTIONED = {
    "nothing": (lambda: ["none"], ["none: no such file", "'shapes', or captioned pictures"]),
    "no pictures": (lambda: [os.mkdir("a") or "a"], ["one .npz or .npy", "found none"]),
    "no captions": (lambda: [array("a.npy", pixels(200, 8, 8))], ["captions.json: no such file"]),
    "few captions": (lambda: [captioned("a", "b")], ["holds 2 entries", "each of 200"]),
    "another key": (
        lambda: [captioned(*[{"name": "a"}] * 200), "--caption-key", "tag"],
        ["no text at 'tag' (['name'])"],
    ),
    "another size": (lambda: [captioned(), "--size", "3"], ["not whole blocks of 3 x 3"]),
    "size of shapes": (lambda: ["shapes", "--size", "20"], ["size is 20; it must be one of"]),
    "blocks": (lambda: ["shapes", "--blocks", "1,a,2"], ["--blocks 1,a,2: give whole numbers"]),
    "few blocks": (lambda: ["shapes", "--blocks", "1,2"], ["each of the 3 resolutions"]),
    "dropout": (lambda: ["shapes", "--caption-dropout", "2"], ["caption_dropout is 2.0"]),
    "no encoder": (
        lambda: [captioned(), "--encoder", "mini", "--channels", "16"],
        ["no text encoder named 'mini'; did you mean 'minilm'"],
    ),
}


@pytest.mark.parametrize("case", CAPTIONED)
def test_captioned_pictures(refused, case):
    make, message = CAPTIONED[case]
    refused(["train", "text", *make(), "--output", "out"], *message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--log-snr-std", "1"],
            "log_snr_std is not an option of clip without --noise-conditional",
        ),
        (["--negatives", "-1"], "negatives is -1"),
        (["--image-features", "lite0"], "'lite0'; choose from efficientnet-lite0"),
        (
            ["--image-features", "efficientnet-lite0", "--noise-conditional"],
            "the frozen features were trained on clean pictures only",
        ),
        (["--held-out", "0.1"], "held_out is not an option of shapes, whose grammar"),
        (["--channels", "16,a"], "--channels 16,a: give whole numbers"),
        (["--channels", "16,32,48,64,80,96"], "images of 32 x 32 do not divide"),
        (["--channels", "16", "--encoder", "mini"], "did you mean 'minilm'"),
    ],
)
def test_training_of_towers(refused, words, message):
    refused(["train", "clip", "shapes", *words, "--output", "out"], message)


GAUSSIAN = """
import jax.numpy as jnp, numpyro, numpyro.distributions as dist
from smcdiff import priors
def model(y=None):
    x = numpyro.sample("x", priors.Gaussian(jnp.zeros(3), 1.0))
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(), obs=y)
"""
MODELS = [
    ("none.py:model", "", "none.py: no such file; give a Python file, FILE:FUNCTION"),
    ("m.py", "", "give a Python file and a function, FILE:FUNCTION"),
    ("m.py:other", "", "m.py has no function 'other'"),
    ("m.txt:model", "", "m.txt is no Python file"),
    ("m.py:model", "1 / 0", "m.py fails when it is imported (ZeroDivisionError"),
    ("m.py:model", "def", "SyntaxError"),
    ("m.py:model", "import sys; sys.exit(3)", "SystemExit"),
    ("m.py:model", "def model(): raise SystemExit", "SystemExit"),
    ("m.py:model", "def model(x): pass", "callable without arguments"),
    ("m.py:model", "def model(): raise KeyError('a')", "KeyError"),
    ("m.py:model", "def model(): pass", "one of each"),
    ("m.py:model", GAUSSIAN, "takes images (h, w, c)"),
]


@pytest.mark.parametrize(("spec", "content", "message"), MODELS)
def test_training_models(refused, spec, content, message):
    if not spec.startswith("none"):
        text(spec.partition(":")[0], content)
    refused(["train", f"--model={spec}", "--output", "out"], message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model=m.py:other"], "m.py has no function 'other'"),
        (["--model=m.py:images"], "images of 3 x 3 do not divide by 4"),
        (["--model=m.py:model", "--batch-size=0"], "batch_size is 0"),
        (["--model=m.py:model", "--data=none.npy"], "none.npy: no such file"),
    ],
)
def test_training_of_a_twist(refused, words, message):
    text(
        "m.py",
        GAUSSIAN
        + """
def images(y=None):
    x = numpyro.sample("x", priors.Gaussian(jnp.zeros((3, 3, 1)), 1.0))
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(), obs=y)
""",
    )
    refused(["train", "twist", *words, "--output", "out"], message)


def test_training_of_an_upsampler(refused):
    output = ["--output", "out"]
    refused(["train", "upsampler", "none.npz", *output], "no such file")
    refused(["train", "upsampler", images(), *output, "--factor", "1"], "factor is 1")
    refused(["train", "upsampler", images(), *output, "--log-snr", "99"], "log_snr is 99.0")


def test_training_of_a_classifier(refused):
    refused(["train", "classifier", images(), "-o", "out"], "no array 'y_train' or 'labels'")
    refused(["train", "classifier", "none.npz", "-o", "out"], "no such file")
