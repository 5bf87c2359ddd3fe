"""``smcdiff draw`` and ``solve --caption``: what they leave, and what they refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import Posterior, save_prior, thresholding
from smcdiff.cli import solve
from smcdiff.cli.caption_filter import CaptionFilter
from smcdiff.cli.captioned import Guidance
from smcdiff.shapes import one_word_changes
from smcdiff.store.clip import save_clip
from tests.cli.inputs import array
from tests.store.text_priors import SHAPE, text_prior, towers, upsampler
from tests.text.folders import copied, edit_weights

CAPTION = "two red circles"
HIGH = (8, 8, 3)
FEW = ["--steps", "3", "--number", "3"]
FILTER = [*FEW, "--particles", "4", "--chains", "2"]


def with_reader(**changes):
    """The prior, whose captions are read in another way."""
    prior = text_prior()
    reader = dataclasses.replace(prior.denoiser.reader, **changes)
    prior.denoiser = dataclasses.replace(prior.denoiser, reader=reader)
    return prior


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders: a prior, of any text, of a lost and of another encoder; an upsampler; towers."""
    folder = tmp_path_factory.mktemp("models")
    another = copied("bert", folder)

    def change(tensors):
        tensors[min(tensors)] += 1

    edit_weights(another, change)
    save_prior(text_prior(), folder / "prior")
    save_prior(text_prior().given(CAPTION), folder / "given")
    save_prior(with_reader(grammar=None), folder / "any")
    save_prior(with_reader(source="gone"), folder / "lost")
    save_prior(with_reader(source=str(another)), folder / "other")
    about = {"training": {"log_snr": 0.5}}
    save_prior(upsampler(), folder / "up", about=about)
    save_clip(towers(), folder / "clip", "", {})
    free = dataclasses.replace(towers().reader, grammar=None)
    save_clip(dataclasses.replace(towers(), reader=free), folder / "free", "", {})
    return folder


@pytest.fixture
def draw(smcdiff, models, monkeypatch):
    """Runs the command on the prior; what it printed, on a wide terminal and in one line."""
    monkeypatch.setenv("COLUMNS", "400")

    def run(*words, prior="prior"):
        code, out, err = smcdiff("draw", CAPTION, "--prior", models / prior, *words)
        assert code == 0, err
        assert "steps" in err  # progress
        return " ".join(out.split())

    return run


def names(folder):
    return {file.name for file in folder.iterdir()}


def test_guided_draws(draw, tmp_path):
    """Of a threshold too; what is a heuristic is called one."""
    out = draw(*FEW, "--threshold", "dynamic", "--background", "1")
    assert names(tmp_path / "smcdiff-draw") == {"samples.npy", "samples.png"}
    samples = np.load("smcdiff-draw/samples.npy")
    assert samples.shape == (3, *SHAPE) and np.abs(samples).max() <= 1.0
    assert "3 draws of shape (4, 4, 3) in smcdiff-draw" in out
    assert "strength 3 without weights is a heuristic" in out


def test_strength_one_is_the_captions_prior(draw, models, monkeypatch):
    """At the cost of one evaluation a step, and no heuristic."""
    monkeypatch.setattr("smcdiff.cli.drawing.interruptible", _zeros)
    assert "heuristic" not in draw(*FEW, "--strength", "1")
    given = Guidance.of(1.0, "static", None).given(text_prior(), CAPTION)
    assert given.denoiser.strength is None and given.threshold == thresholding.Static()
    given = Guidance.of(2.5, "dynamic", -1.0).given(text_prior(), CAPTION)
    assert given.denoiser.strength == 2.5
    assert given.threshold == thresholding.Dynamic(background=-1.0)


def _zeros(run, bar):
    with bar:
        bar(1, 1, {})
    return np.zeros((3, *SHAPE), np.float32)


@pytest.mark.slow
def test_a_cascade_raises_the_draws(draw, models):
    draw(*FEW, "--cascade", models / "up", "-o", "high")
    high = np.load("high/samples.npy")
    assert high.shape == (3, *HIGH) and np.all(np.isfinite(high))


def test_the_caption_weighed_by_the_prior(models):
    """By its ratio to the prior without the caption; the twist's is a rougher one."""
    guidance = Guidance.of(2.0, "static", None)
    observed = CaptionFilter(4, 2, None, 3, None, None).observe(text_prior(), CAPTION, guidance)
    prior, likelihood = observed.arguments
    assert prior.denoiser.text is None and likelihood.prior is prior
    proposal = observed.proposal
    for conditional in (likelihood.conditional, proposal.conditional):
        assert conditional.denoiser.text is not None and conditional.denoiser.strength is None
    assert proposal.strength == 2.0 and proposal.threshold == thresholding.Static()


@pytest.mark.slow
def test_the_caption_weighed_by_the_prior_and_raised(draw, smcdiff, models, tmp_path):
    """Each particle is raised once, and is a site of the posterior beside its own."""
    out = draw(*FILTER, "--cascade", models / "up", "--log-snr", "inf")
    folder = tmp_path / "smcdiff-draw"
    assert names(folder) == {"posterior.nc", "samples.npy", "samples.png"}
    posterior = Posterior.load(folder / "posterior.nc")
    assert posterior.samples["x"].shape == (2, 4, *SHAPE)
    assert posterior.samples["raised"].shape == (2, 4, *HIGH)
    assert posterior.weighted and posterior.attrs["caption"] == CAPTION
    assert np.load(folder / "samples.npy").shape == (3, *HIGH)
    for word in (CAPTION, "log p(x given caption)", "ClassifierFree", "log evidence", "ESS"):
        assert word in out
    code, out, _ = smcdiff("report", folder / "posterior.nc")
    assert code == 0 and "filter ESS" in out


@pytest.mark.slow
def test_the_caption_weighed_by_towers(draw, models):
    """The target is the likelihood of the towers; a draw at strength 0 has it as well."""
    out = draw(*FILTER, "--clip", models / "clip", "--strength", "0")
    assert "against 10 other captions" in out
    posterior = Posterior.load("smcdiff-draw/posterior.nc")
    assert posterior.observed["caption"] == 0
    text = towers().reader.encoded([CAPTION, *one_word_changes(CAPTION)])
    expected = towers().log_probability(jnp.asarray(posterior.samples["x"][1]), text)[:, 0]
    np.testing.assert_allclose(posterior.log_likelihood[1], expected, rtol=1e-3, atol=1e-3)


def test_alternatives_that_are_named(models):
    """Of any text, or in the form of a grammar; the caption itself is none."""
    guidance, named = Guidance.of(3.0, "none", None), f"A  red circle;a blue square;{CAPTION};"
    for towers_of, count in (("free", 3), ("clip", 3)):
        weighing = CaptionFilter(4, 2, None, 3, str(models / towers_of), named)
        observed = weighing.observe(text_prior(), CAPTION, guidance)
        assert f"against {count - 1} other captions" in observed.words
        assert len(observed.arguments[2].mask) == count


def test_towers_that_ship_are_taken_where_none_are_named(models, monkeypatch):
    monkeypatch.setattr("smcdiff.cli.caption_filter._SHIPPED", {"shapes": str(models / "clip")})
    guidance = Guidance.of(3.0, "none", None)
    for clip, word in ((None, "against 10 other"), ("none", "log p(x given caption)")):
        weighing = CaptionFilter(4, 2, None, 3, clip, None)
        assert word in weighing.observe(text_prior(), CAPTION, guidance).words
    unseen = "a cyan circle"  # held back from their training, see experiments/clip
    weighing = CaptionFilter(4, 2, None, 3, None, None)
    assert "log p" in weighing.observe(text_prior(), unseen, guidance).words
    monkeypatch.setattr("smcdiff.cli.caption_filter._SHIPPED", {"shapes": "shapes-clip"})
    weighing = CaptionFilter(4, 2, None, 3, None, None)  # those that ship are of larger pictures
    assert "log p" in weighing.observe(text_prior(), CAPTION, guidance).words


NUMBERS = [
    ("--number 0", "--number is 0; it must be at least 1"),
    ("--steps 1", "--steps is 1; a time grid needs 2 steps"),
    ("--strength nan", "--strength is nan; it must be a finite number"),
    ("--threshold statc", "--threshold is 'statc'; did you mean 'static'"),
    ("--background 1", "--background does nothing without --threshold dynamic"),
    ("--threshold static --background 1", "does nothing without --threshold dynamic"),
    ("--threshold dynamic --background 2", "--background is 2; it must lie between black"),
    ("--log-snr 2", "--log-snr goes with --cascade"),
    ("--cascade up --log-snr nan", "--log-snr is nan; it lies between -20 and 20"),
    ("--cascade up --log-snr -30", "--log-snr is -30; it lies between -20 and 20"),
    ("--particles 0", "num_particles"),
    ("--particles 4 --chains 0", "num_chains"),
    ("--particles 4 --batch-size 0", "batch_size"),
    ("--chains 4", "--chains goes with --particles"),
    ("--batch-size 4", "--batch-size goes with --particles"),
    ("--clip clip", "--clip goes with --particles"),
    ("--particles 4 --against a;b", "--against names what CLIP tells the caption apart from"),
    ("--seed -1", "--seed"),
]


@pytest.mark.parametrize(("words", "message"), NUMBERS)
def test_options(refused, models, monkeypatch, words, message):
    refused(["draw", CAPTION, "--prior", models / "prior", *words.split()], message)


def test_captions(refused, models):
    folder = ["--prior", models / "prior"]
    refused(["draw", " ", *folder], "CAPTION is empty; say what the picture shows")
    message = "'purple' is not a word of the grammar"
    refused(["draw", "two purple circles", *folder], str(models / "prior"), message)
    refused(["draw", "red two circles", *folder], "is not a count, a colour and a shape")
    words = ["draw", "two red circles " * 40, "--prior", models / "any"]
    refused(words, "tokens, and the encoder takes 48: shorten it")


def test_encoders(refused, models):
    message = ("must be encoded by 'bert'", "no text encoder named 'gone'")
    refused(["draw", CAPTION, "--prior", models / "lost"], *message)
    message = ("made with the text encoder 'bert'", "weights differ; take the encoder")
    refused(["draw", CAPTION, "--prior", models / "other"], str(models / "other"), *message)


def test_priors(refused, models):
    train = "train one with `smcdiff train text shapes -o FOLDER`"
    refused(["draw", CAPTION], "--prior is missing: the folder of a prior of captions", train)
    refused(["draw", CAPTION, "--prior", "mnist"], "--prior mnist takes no caption", train)
    refused(["draw", CAPTION, "--prior", "none"], "no prior named 'none'")
    refused(["draw", CAPTION, "--prior", models / "up"], "is an upsampler, a stage of --cascade")
    refused(["draw", CAPTION, "--prior", models / "clip"], "a model of kind 'clip', not 'prior'")
    refused(["draw", CAPTION, "--prior", models / "given"], "was saved with a caption given")


@pytest.mark.slow
def test_upsamplers(refused, models):
    words, up = ["draw", CAPTION, "--prior", models / "prior"], models / "up"
    refused([*words, "--cascade", models / "prior"], "is a prior, and no upsampler; train one")
    refused([*words, "--cascade", models / "clip"], "a model of kind 'clip', not 'prior'")
    refused([*words, "--cascade", "none"], "no prior named 'none'")
    refused([*words, "--cascade", f"{up},"], "--cascade: a folder is missing")
    message = "raises pictures of 4 x 4 x 3, and the stage below it makes 8 x 8 x 3"
    refused([*words, "--cascade", f"{up},{up}"], message)
    message = "--log-snr is 0: ", "trained with noise of log-SNR 0.5 at the least"
    refused([*words, "--cascade", up, "--log-snr", "0"], *message)


@pytest.mark.slow
def test_towers(refused, models, monkeypatch):
    words = ["draw", CAPTION, "--prior", models / "prior", "--particles", "4", "--clip"]
    refused([*words, models / "prior"], "a model of kind 'prior', not 'clip'")
    refused([*words, "gone"], "no clip named 'gone'")
    refused([*words, models / "free"], "of no closed grammar", "--against 'a dog;a cat'")
    refused([*words, models / "clip", "--against", " ;"], "--against names no other caption")
    message = str(models / "clip"), "'dog' is not a word of the grammar"
    refused([*words, models / "clip", "--against", "a dog"], *message)
    wide = dataclasses.replace(towers(), event_shape=HIGH)
    monkeypatch.setattr("smcdiff.cli.caption_filter.load_clip", lambda _: wide)
    message = "of pictures of shape (8, 8, 3), and --prior makes (4, 4, 3)"
    refused([*words, "wide"], message)


def test_nothing_is_overwritten(refused, models, tmp_path):
    (tmp_path / "smcdiff-draw").mkdir()
    (tmp_path / "smcdiff-draw" / "a").touch()
    refused(["draw", CAPTION, "--prior", models / "prior"], "smcdiff-draw exists")


def test_draws_that_are_not_finite(smcdiff, models, monkeypatch, tmp_path):
    nothing = np.full((3, *SHAPE), np.nan, np.float32)
    monkeypatch.setattr("smcdiff.cli.drawing.interruptible", lambda *_: nothing)
    code, _, err = smcdiff("draw", CAPTION, "--prior", models / "prior", "--number", "3")
    assert code == 2 and "take --strength near 1, or --threshold static" in err
    assert not list(tmp_path.iterdir())


def test_solve_takes_the_prior_of_the_caption(models):
    found, expected = solve._prior(str(models / "prior"), CAPTION), text_prior().given(CAPTION)
    assert found.denoiser.strength is None
    jax.tree.map(np.testing.assert_array_equal, found.denoiser.text, expected.denoiser.text)
    assert solve._prior(str(models / "prior"), None).denoiser.text is None


@pytest.mark.slow
def test_solve_with_a_caption(smcdiff, models):
    """As with the prior that was saved with it."""
    array("half.npy", np.zeros(SHAPE))
    words = ["solve", "inpaint", "half.npy", "--particles", "4", "--steps", "3", "--chains", "1"]
    found = []
    for name, caption in (("prior", ["--caption", CAPTION]), ("given", [])):
        code, out, err = smcdiff(*words, "--prior", models / name, *caption, "-o", name)
        assert code == 0, err
        assert (CAPTION in out) == bool(caption)
        found.append(Posterior.load(f"{name}/posterior.nc").samples["x"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_what_solve_refuses(refused, models):
    array("half.npy", np.zeros(SHAPE))
    words = ["solve", "inpaint", "half.npy", "--caption"]
    refused([*words, CAPTION], "--prior mnist takes no caption; give a prior of captions")
    refused([*words, CAPTION, "--prior", "mnist-classes"], "takes no caption")
    refused([*words, CAPTION, "--prior", models / "up"], "is an upsampler")
    refused([*words, "", "--prior", models / "prior"], "--caption is empty")
    refused([*words, "a dog", "--prior", models / "prior"], "'dog' is not a word of the grammar")
    refused([*words, CAPTION, "--prior", models / "lost"], "must be encoded by 'bert'")
