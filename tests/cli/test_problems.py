"""The operators of `smcdiff solve`: each against its definition, and the observation's file."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from smcdiff import InputError, Posterior, save_prior
from smcdiff.cli.problems import OPTIONS, Degradation, Measurement
from smcdiff.diffusion.schedules import Cosine
from smcdiff.networks.unet import PatchedUNet, UNet2D
from smcdiff.priors import DiffusionPrior, VPrediction
from smcdiff.store._network_functions import NetworkDenoiser
from smcdiff.training import TrainConfig

SHAPE = (8, 8, 3)
RANDOM = np.random.default_rng(0)
X = RANDOM.uniform(-1, 1, SHAPE).astype(np.float32)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(name, array):
    np.save(name, array)
    return Path(name)


def measured(name, shape=SHAPE, **options):
    return Measurement.of(name, Degradation(**options), shape, jax.random.key(0))


def apply(name, **options):
    return np.asarray(measured(name, **options).operator(X))


def test_masks():
    assert apply("inpaint").shape == (8 * 4 * 3,)
    np.testing.assert_array_equal(apply("inpaint", hide="top"), X[4:].ravel())
    box = np.ones(SHAPE, bool)
    box[1:3, 2:6] = False
    np.testing.assert_array_equal(apply("inpaint", box=(1, 2, 2, 4)), X[box])
    np.testing.assert_array_equal(apply("inpaint", hide_channels="0,2"), X[..., 1].ravel())
    both = apply("inpaint", hide="bottom", hide_channels="1")
    np.testing.assert_array_equal(both, X[:4, :, [0, 2]].ravel())
    random = measured("inpaint", hide="random", keep=0.25).last.seen
    assert random is not None and len(random) == 16 * 3 and len({*(random // 3)}) == 16


@pytest.mark.parametrize("hidden", [np.nan, -999.0, np.inf])
def test_what_is_hidden_may_hold_anything(here, hidden):
    """A file marks bad pixels as it likes; one channel's alone, too."""
    for options, seen in (({"hide": "top"}, np.s_[4:]), ({"hide_channels": "0"}, np.s_[..., 1:])):
        image = np.full_like(X, hidden)
        image[seen] = X[seen]
        y = measured("inpaint", **options).read(saved("a.npy", image), None, 0.1)
        np.testing.assert_allclose(y, X[seen].ravel(), atol=1e-6)


def test_masks_of_each_channel_from_files(here):
    mask = RANDOM.random(SHAPE) < 0.5
    np.testing.assert_array_equal(apply("inpaint", mask=saved("m.npy", mask)), X[mask])
    Image.fromarray(255 * mask.astype(np.uint8)).save("m.png")
    np.testing.assert_array_equal(apply("inpaint", mask=Path("m.png")), X[mask])
    flat = mask[..., 0]
    np.testing.assert_array_equal(apply("inpaint", mask=saved("f.npy", flat)), X[flat].ravel())
    seen = measured("inpaint", mask=Path("m.npy"))
    picture = seen.picture(np.asarray(seen.operator(X)))
    np.testing.assert_array_equal(np.isnan(picture), ~mask)


def test_blurs(here):
    from scipy import signal

    kernel = RANDOM.random((3, 5)).astype(np.float32)
    for wrap, boundary in ((None, "fill"), (True, "wrap")):
        expected = [signal.convolve2d(X[..., i], kernel, "same", boundary) for i in range(3)]
        found = apply("deblur", kernel=saved("k.npy", kernel), wrap=wrap)
        np.testing.assert_allclose(found, np.stack(expected, -1), rtol=1e-4, atol=1e-4)
    Image.fromarray(np.eye(3, dtype=np.uint8) * 200).save("k.png")
    constant = measured("deblur", kernel=Path("k.png")).operator(np.ones(SHAPE, np.float32))
    np.testing.assert_allclose(constant[4, 4], 1.0, rtol=1e-5)  # weights sum to one
    assert apply("deblur", width=1.0).shape == apply("deblur", motion=3.0).shape == SHAPE


def test_matrices(here):
    mix = RANDOM.random((2, 3)).astype(np.float32)
    found = apply("colourise", mix=saved("c.npy", mix))
    np.testing.assert_allclose(found, X @ mix.T, rtol=1e-5)
    rows, columns = (RANDOM.random((n, 8)).astype(np.float32) for n in (5, 3))
    found = apply("separable", rows=saved("r.npy", rows), columns=saved("w.npy", columns))
    expected = np.einsum("ij,jkc,lk->ilc", rows, X, columns)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    matrix = RANDOM.normal(size=(7, 192)).astype(np.float32)
    found = apply("dense", matrix=saved("a.npy", matrix))
    np.testing.assert_allclose(found, matrix @ X.ravel(), rtol=1e-3, atol=1e-4)


def test_compositions(here):
    small = apply("super-resolve", factor=2)
    grey = apply("colourise+super-resolve", factor=2)
    np.testing.assert_allclose(grey[..., 0], small.mean(-1), rtol=1e-5, atol=1e-6)
    hidden = apply("super-resolve+inpaint", factor=2, hide="left")  # one operator of the two
    np.testing.assert_allclose(hidden, small[:, 2:].ravel(), rtol=1e-5, atol=1e-6)
    matrix = saved("a.npy", RANDOM.normal(size=(5, 48)))
    expected = np.load("a.npy").astype(np.float32) @ small.ravel()
    found = apply("super-resolve+dense", factor=2, matrix=matrix)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    blurred = measured("deblur+super-resolve+fourier", factor=2, keep=0.5)
    assert blurred.operator.in_shape == SHAPE and blurred.kind == "fourier"


def test_observations_from_files(here):
    """What the user saves of A x is what the sampler conditions on."""
    rows = saved("r.npy", RANDOM.normal(size=(5, 8)))
    cases = {
        "inpaint": {"hide_channels": "1"},
        "deblur": {},
        "super-resolve": {"bicubic": True},
        "colourise": {},
        "separable": {"rows": rows, "columns": rows},
        "dense": {"matrix": saved("a.npy", RANDOM.normal(size=(7, 192)))},
    }
    assert {*cases, "fourier"} == set(OPTIONS)
    for name, options in cases.items():
        problem = measured(name, **options)
        y = np.asarray(problem.operator(X))
        file = saved("y.npy", X if name == "inpaint" else y)
        np.testing.assert_allclose(problem.read(file, None, 1e-3), y, rtol=1e-5, atol=1e-6)
        picture = problem.picture(y)
        assert picture.ndim == 3 and np.nanmax(np.abs(picture)) < 1.5
    kept = RANDOM.random((8, 8)) < 0.5
    problem = measured("fourier", mask=saved("m.npy", kept))
    whole = np.fft.fft2(X, axes=(0, 1), norm="ortho")
    whole[~kept] = np.nan  # never looked at
    y = problem.read(saved("y.npy", whole), None, 0.1)
    np.testing.assert_allclose(y, problem.operator(X), atol=1e-5)
    assert problem.picture(y).shape == SHAPE


BAD = [
    ("inpaint", {"hide": "left", "box": (0, 0, 1, 1)}, "--hide and --box exclude each other"),
    ("inpaint", {"keep": 0.5}, "--keep does nothing without --hide random"),
    ("inpaint", {"box": (0, 0, 9, 1)}, "not inside an image of 8 x 8"),
    ("inpaint", {"box": (0, 0, 0, 1)}, "--box 0 0 0 1: give the first row"),
    ("inpaint", {"box": (0, 0, 8, 8)}, "every pixel is masked"),
    ("inpaint", {"hide_channels": "3"}, "numbers from 0 to 2"),
    ("inpaint", {"hide_channels": "red"}, "numbers from 0 to 2"),
    ("inpaint", {"hide_channels": "0,1,2"}, "every channel is hidden"),
    ("deblur", {"width": 1.0, "motion": 3.0}, "--width and --motion exclude"),
    ("deblur", {"angle": 3.0}, "--angle does nothing without --motion"),
    ("deblur", {"wrap": True}, "--wrap does nothing without --kernel"),
    ("deblur", {"width": np.inf}, "width is inf"),
    ("deblur", {"motion": 1e9}, "fit into the image"),
    ("deblur", {"motion": 3.0, "angle": np.nan}, "angle is nan"),
    ("deblur", {"mask": Path("m.npy")}, "--mask goes with inpaint or fourier, not with deblur"),
    ("deblur", {"matrix": Path("a.npy")}, "--matrix goes with dense"),
    ("super-resolve", {"factor": 3}, "does not divide by 3; give a factor that does"),
    ("fourier", {"mask": Path("m.npy"), "keep": 0.5}, "--mask and --keep exclude"),
    ("separable", {"rows": Path("r.npy")}, "needs --rows and --columns"),
    ("dense", {}, "needs --matrix"),
    ("inpant", {}, "no problem named 'inpant'; did you mean 'inpaint'"),
    ("deblur+", {}, "no problem named ''"),
    ("deblur+deblur", {}, "deblur twice"),
    ("inpaint+deblur", {}, "inpaint leaves no image, and deblur takes one; put inpaint last"),
    ("fourier+deblur", {}, "fourier leaves no image"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD)
def test_options_that_do_not_fit(here, name, options, message):
    with pytest.raises(InputError, match=message.replace("+", r"\+")):
        measured(name, **options)


FILES = [
    ("deblur", "kernel", np.ones((2, 3)), "both odd"),
    ("deblur", "kernel", np.ones((9, 9)), "larger than the image"),
    ("deblur", "kernel", np.ones(3), r"shape \(3,\); it must be \(any, any\)"),
    ("deblur", "kernel", np.full((3, 3), np.nan), "9 values are NaN"),
    ("deblur", "kernel", np.full((3, 3), 1e300), "9 values are NaN or infinite"),
    ("colourise", "mix", np.ones((1, 4)), r"it must be \(any, 3\)"),
    ("colourise", "mix", np.full((1, 3), "a"), "give real numbers"),
    ("dense", "matrix", np.ones((3, 100)), r"it must be \(any, 192\)"),
    ("dense", "matrix", np.ones((0, 192)), "it must be"),
    ("dense", "matrix", np.ones((3, 192), complex), "give real numbers"),
    ("fourier", "mask", np.ones((4, 4)), r"give \(8, 8, 1\), or \(8, 8\)"),
    ("inpaint", "mask", np.ones((8, 8, 2)), "a mask of shape"),
]


@pytest.mark.parametrize(("name", "option", "array", "message"), FILES)
def test_files_that_do_not_fit(here, name, option, array, message):
    with pytest.raises(InputError, match=message):
        measured(name, **{option: saved("f.npy", array)})


def test_files_of_another_type(here):
    Image.new("L", (3, 3)).save("black.png")
    Image.new("RGB", (3, 3)).save("colours.png")
    for name, message in (("black.png", "black everywhere"), ("colours.png", "in colours"),
                          (".", "is a folder"), ("none.npy", "no such file")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            measured("deblur", kernel=Path(name))
    with pytest.raises(InputError, match="not an .npy file"):
        measured("dense", matrix=Path("black.png"))


def test_observations_that_do_not_fit(here):
    dense = measured("dense", matrix=saved("a.npy", np.ones((3, 192))))
    with pytest.raises(InputError, match=r"it must be \(3\)"):
        dense.read(saved("y.npy", np.ones(4)), None, 0.1)
    with pytest.raises(InputError, match="--range does not apply"):
        dense.read(saved("y.npy", np.ones(3)), (0.0, 1.0), 0.1)
    fourier = measured("fourier")
    with pytest.raises(InputError, match="are complex"):
        fourier.read(saved("y.npy", X), None, 0.1)
    with pytest.raises(InputError, match="NaN or infinite; hide them with --mask"):
        fourier.read(saved("y.npy", np.full(SHAPE, np.nan * 1j)), None, 0.1)
    sharp = measured("deblur", kernel=saved("k.npy", 2 * np.ones((1, 1))))  # does not sum to one
    with pytest.raises(InputError, match="not an .npy file"):
        sharp.read(Path("y.png"), None, 0.1)


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """A prior of 8 x 8 images in colours, with random weights."""
    config = TrainConfig(channels=(16,)).network(SHAPE)
    network = nnx.eval_shape(lambda: UNet2D(config, rngs=nnx.Rngs(0)))
    state = nnx.state(network, nnx.Param)
    filled = jax.tree.map(lambda p: 0.1 * RANDOM.normal(size=p.shape).astype(np.float32), state)
    nnx.update(network, filled)
    prior = DiffusionPrior(
        NetworkDenoiser.wrap(PatchedUNet(network, 2)), Cosine(), SHAPE, VPrediction()
    )
    return save_prior(prior, tmp_path_factory.mktemp("priors") / "colours")


RUNS = {
    "inpaint": ["--hide-channels", "0,2"],
    "dense": ["--matrix", "matrix.npy"],
    "deblur+super-resolve": ["--width", "1", "--factor", "2"],
    "colourise+fourier": ["--mix", "mix.npy"],
}


@pytest.mark.slow
@pytest.mark.parametrize("problem", RUNS)
def test_solve_in_colours(smcdiff, colours, problem):
    np.save("image.npy", X)
    np.save("matrix.npy", RANDOM.normal(size=(6, 192)))
    np.save("mix.npy", np.ones((2, 3)))
    code, out, err = smcdiff(
        "solve", problem, "image.npy", "--simulate", *RUNS[problem], "--prior", colours,
        "--particles", "4", "--steps", "3", "--chains", "1", "--batch-size", "2", "-o", "out",
    )  # fmt: skip
    assert code == 0, err
    assert "PSNR" in out
    assert Posterior.load("out/posterior.nc").samples["x"].shape == (1, 4, *SHAPE)
    with Image.open("out/solution.png") as picture:
        assert picture.size[0] > 1000
