"""The command line: what it leaves."""

import numpy as np
import pytest
from PIL import Image

from smcdiff import Posterior

FAST = ["--particles", "4", "--steps", "4", "--chains", "1"]


OPTIONS = {
    "inpaint": ["--hide", "random", "--proposal", "mcgdiff"],
    "deblur": ["--motion", "5"],
    "super-resolve": ["--bicubic"],
    "fourier": ["--keep", "0.2"],
}


@pytest.mark.parametrize(
    "problem",
    ["inpaint"]
    + [pytest.param(p, marks=pytest.mark.slow) for p in ("fourier", "deblur", "super-resolve")],
)
def test_solve_leaves_a_posterior_and_a_picture(smcdiff, tmp_path, problem):
    code, out, err = smcdiff("solve", problem, *OPTIONS[problem], *FAST)
    assert code == 0, err
    folder = tmp_path / f"smcdiff-{problem}"
    assert {file.name for file in folder.iterdir()} == {"posterior.nc", "solution.png"}
    posterior = Posterior.load(folder / "posterior.nc")
    assert posterior.samples["x"].shape == (1, 4, 28, 28, 1)
    with Image.open(folder / "solution.png") as picture:
        assert picture.size[0] > 1000
    for word in ("log evidence", "ESS", "PSNR", "seconds"):
        assert word in out
    assert "steps" in err  # progress
    code, out, _ = smcdiff("report", folder / "posterior.nc")
    assert code == 0 and "filter ESS" in out


@pytest.mark.slow
def test_image_and_mask_of_the_user(smcdiff, tmp_path):
    grey = np.full((28, 28), 20, np.uint8)
    Image.fromarray(np.stack([grey] * 3, -1)).save("mine.png")
    mask = np.zeros((28, 28), np.uint8)
    mask[:, :14] = 255
    Image.fromarray(mask).save("mask.png")
    code, out, err = smcdiff("solve", "inpaint", "mine.png", "--mask", "mask.png", *FAST)
    assert code == 0, err
    assert "PSNR" not in out  # no truth
    observed = Posterior.load("smcdiff-inpaint/posterior.nc").observed["y"]
    np.testing.assert_allclose(observed, np.full(14 * 28, 20 / 127.5 - 1), atol=1e-5)


@pytest.mark.slow
def test_an_opaque_alpha_is_dropped_with_a_word(smcdiff):
    """Of an array; of a PNG, whose format says what it is, without."""
    colours = np.random.default_rng(0).integers(0, 255, (28, 28, 4)).astype(np.uint8)
    colours[..., 3] = 255
    np.save("mine.npy", colours)
    Image.fromarray(colours).save("mine.png")
    posteriors = []
    for name in ("mine.npy", "mine.png"):
        code, _, err = smcdiff("solve", "inpaint", name, "-o", f"of-{name}", *FAST)
        assert code == 0, err
        said = "note: mine.npy: four channels are taken for red, green, blue and an opaque alpha"
        assert (said in err) == (name == "mine.npy")
        posteriors.append(Posterior.load(f"of-{name}/posterior.nc"))
    np.testing.assert_array_equal(posteriors[0].observed["y"], posteriors[1].observed["y"])


@pytest.mark.slow
def test_array_with_a_range_and_truth(smcdiff):
    np.save("small.npy", np.full((7, 7), 0.25))
    np.save("truth.npy", np.full((28, 28), 0.25))
    words = ["solve", "super-resolve", "small.npy", "--range", "0", "1", "--truth", "truth.npy"]
    code, out, err = smcdiff(*words, *FAST)
    assert code == 0, err
    assert "PSNR" in out


def test_sample_and_priors(smcdiff, tmp_path):
    code, _, err = smcdiff("sample", "--number", "3", "--steps", "3")
    assert code == 0, err
    assert np.load("smcdiff-samples/samples.npy").shape == (3, 28, 28, 1)
    assert (tmp_path / "smcdiff-samples" / "samples.png").exists()
    code, out, _ = smcdiff("priors")
    assert code == 0 and "mnist" in out


def test_sample_guided_by_a_fast_solver(smcdiff, tmp_path):
    code, _, err = smcdiff(
        "sample", "--prior", "mnist-classes", "--label", "3", "--strength", "2", "--solver", "dpm",
        "--steps", "3", "--number", "2", "--temperature", "0.9", "-o", "a",
    )  # fmt: skip
    assert code == 0, err
    assert np.isfinite(np.load("a/samples.npy")).all()


@pytest.mark.parametrize(
    "command",
    ["solve", "sample", "draw", "train", "train prior", "train classifier", "train amortized",
     "train twist", "train text", "train clip", "captions", "priors", "report"],
)  # fmt: skip
def test_every_command_has_a_manual(smcdiff, command):
    code, out, _ = smcdiff(*command.split(), "--help")
    assert code == 0 and "Usage" in out


def test_version_and_help_without_words(smcdiff):
    assert smcdiff("--version")[1].strip()
    for words in ((), ("train",)):
        code, out, _ = smcdiff(*words)
        assert code == 0 and "Usage" in out
