"""The command line: what it leaves, and one line with exit code 2 for every bad input."""

import os

import numpy as np
import pytest
from PIL import Image

from smcdiff import Posterior, cli

FAST = ["--particles", "4", "--steps", "4", "--chains", "1"]


@pytest.fixture
def smcdiff(tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr("sys.argv", ["smcdiff", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def refused(result, *words):
    """Bad input: exit code 2, one line that has these words, nothing left behind."""
    code, _, err = result
    lines = [line for line in err.splitlines() if line.startswith("smcdiff:")]
    assert code == 2 and len(lines) == 1, err
    assert "Traceback" not in err
    assert all(word in lines[0] for word in words), lines[0]


OPTIONS = {
    "inpaint": ["--hide", "random", "--proposal", "mcgdiff"],
    "deblur": ["--motion", "5"],
    "super-resolve": ["--bicubic"],
    "fourier": ["--keep", "0.2"],
}


@pytest.mark.parametrize(
    "problem",
    ["inpaint", "fourier"]
    + [pytest.param(p, marks=pytest.mark.slow) for p in ("deblur", "super-resolve")],
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


def test_array_with_a_range_and_truth(smcdiff):
    np.save("small.npy", np.full((7, 7), 0.25))
    np.save("truth.npy", np.full((28, 28), 0.25))
    words = ["solve", "super-resolve", "small.npy", "--range", "0", "1", "--truth", "truth.npy"]
    code, out, err = smcdiff(*words, *FAST)
    assert code == 0, err
    assert "PSNR" in out


def write(name, array):
    np.save(name, array)
    return name


BAD = {
    "no file": (lambda: ["none.png"], ["none.png", "no such file"]),
    "wrong shape": (lambda: [write("a.npy", -np.ones((5, 5)))], ["(5, 5, 1)", "(28, 28, 1)"]),
    "not an image": (lambda: [write("a.npy", np.zeros(3))], ["shape (3,)"]),
    "wrong range": (lambda: [write("a.npy", np.full((28, 28), 9.0))], ["outside", "--range"]),
    "which range": (lambda: [write("a.npy", np.eye(28))], ["--range 0 1"]),
    "NaN": (lambda: [write("a.npy", np.full((28, 28), np.nan))], ["NaN", "--mask"]),
    "zero noise": (lambda: ["--noise", "0"], ["--noise is 0"]),
    "negative noise": (lambda: ["--noise", "-1"], ["--noise is -1"]),
    "unknown prior": (lambda: ["--prior", "mnits"], ["did you mean 'mnist'"]),
    "unknown proposal": (lambda: ["--proposal", "tds"], ["--proposal tds", "twisted"]),
    "unknown part": (lambda: ["--hide", "middle"], ["--hide middle", "centre"]),
    "no particles": (lambda: ["--particles", "0"], ["num_particles is 0"]),
    "dense covariance": (lambda: ["--proposal", "moment-matched"], ["MomentMatched", "Twisted"]),
    "truth": (lambda: ["--truth", "none.png"], ["--truth"]),
    "NaN in mask": (
        lambda: ["--mask", write("m.npy", np.full((28, 28), np.nan))],
        ["m.npy", "NaN"],
    ),
    "all masked": (lambda: ["--mask", write("m.npy", np.zeros((28, 28)))], ["every pixel"]),
    "mask shape": (lambda: ["--mask", write("m.npy", np.ones((7, 7)))], ["mask of shape"]),
    "output under a file": (
        lambda: ["--output", os.path.join(write("a.npy", np.zeros(1)), "out")],
        ["cannot be written"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(smcdiff, tmp_path, case):
    words, message = BAD[case]
    refused(smcdiff("solve", "inpaint", *words()), *message)
    assert not (tmp_path / "smcdiff-inpaint").exists()


def test_nothing_is_overwritten(smcdiff, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("data")
    refused(smcdiff("solve", "inpaint", "--output", "out"), "out exists")
    assert (tmp_path / "out" / "precious").read_text() == "data"


def test_sample_and_priors(smcdiff, tmp_path):
    code, _, err = smcdiff("sample", "--number", "3", "--steps", "3")
    assert code == 0, err
    assert np.load("smcdiff-samples/samples.npy").shape == (3, 28, 28, 1)
    assert (tmp_path / "smcdiff-samples" / "samples.png").exists()
    code, out, _ = smcdiff("priors")
    assert code == 0 and "mnist" in out
    refused(smcdiff("sample", "--number", "0", "-o", "b"), "--number is 0")
    refused(smcdiff("sample", "--label", "3", "-o", "b"), "this prior knows no classes")
    refused(
        smcdiff("sample", "--prior", "mnist-classes", "--label", "10", "-o", "b"),
        "class 10: this prior has the classes 0 to 9",
    )


def test_sample_guided_by_a_fast_solver(smcdiff, tmp_path):
    code, _, err = smcdiff(
        "sample", "--prior", "mnist-classes", "--label", "3", "--strength", "2", "--solver", "dpm",
        "--steps", "3", "--number", "2", "--temperature", "0.9", "-o", "a",
    )  # fmt: skip
    assert code == 0, err
    assert np.isfinite(np.load("a/samples.npy")).all()
    refused(smcdiff("sample", "--solver", "euler", "-o", "b"), "choose from ancestral, dpm, ode")
    refused(smcdiff("sample", "--temperature", "0.9", "-o", "b"), "--temperature needs --solver")
    refused(smcdiff("sample", "--strength", "2", "-o", "b"), "name it with --label")


def test_train_finds_its_command(smcdiff):
    refused(smcdiff("train", "none.npz", "-o", "b"), "none.npz: no such file")
    refused(smcdiff("train", "classifier", "none.npz", "-o", "b"), "none.npz: no such file")
    refused(smcdiff("train", "--model", "none.py:model", "-o", "b"), "FILE:FUNCTION")
    refused(smcdiff("train", "none.npz", "--weighting", "snr", "-o", "b"), "weighting is 'snr'")


@pytest.mark.parametrize(
    "command",
    ["solve", "sample", "train", "train prior", "train classifier", "train amortized", "priors",
     "report"],
)  # fmt: skip
def test_every_command_has_a_manual(smcdiff, command):
    code, out, _ = smcdiff(*command.split(), "--help")
    assert code == 0 and "Usage" in out


def test_usage_errors(smcdiff):
    assert smcdiff("solve", "sharpen")[0] == 2
    assert smcdiff("report", "none.nc")[0] == 2
    assert smcdiff("--version")[1].strip()
