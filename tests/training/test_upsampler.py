"""Training an upsampler: resumes to the same bits, hears of the level, refuses bad input."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from smcdiff import Cascade, InputError, cascades, load_prior, priors, shapes
from smcdiff.networks._upsampling import enlarged, noise_share
from smcdiff.store.prior import save_prior
from smcdiff.training import UpsamplerTrainConfig, train_upsampler
from smcdiff.training import upsampler as module
from smcdiff.training.upsampler import augmented, lowered
from tests.text.folders import REFERENCES

CONFIG = UpsamplerTrainConfig(
    steps=4, batch_size=4, channels=(16,), patch=2, checkpoint_every=2, sample_every=4,
    text_channels=8, heads=2,
)  # fmt: skip
CAPTIONED = dataclasses.replace(CONFIG, captioned=True, encoder=str(REFERENCES / "bert"))
SHAPE, LOW = (8, 8, 3), (4, 4, 3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images with captions of their halves' colours."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (40, *SHAPE), np.uint8)
    np.savez(folder / "pictures.npz", images=images)
    words = ("red", "green", "blue")
    captions = [f"a {words[i % 3]} {('circle', 'square')[i % 2]}" for i in range(40)]
    (folder / "captions.json").write_text(json.dumps(captions))
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("priors") / "up"
    return train_upsampler(data / "pictures.npz", output, CONFIG, progress_bar=False)


@pytest.fixture
def undrawn(monkeypatch):
    """Without the picture of draws, which is most of the time."""
    monkeypatch.setattr(module, "_draw_samples", lambda *_: None)


@pytest.mark.slow
def test_folder_is_complete(trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {"config.json", "model.safetensors", "card.md", "samples.png"}
    card = (trained / "card.md").read_text()
    assert "smcdiff train upsampler" in card and "from 4 x 4" in card and "log-SNR 0." in card
    entries = json.loads((trained / "config.json").read_text())
    assert entries["low_shape"] == [4, 4, 3] and "text" not in entries
    arrays = load_file(trained / "model.safetensors")
    assert arrays["time_embedding.cond_proj.weight"].shape == (16, 16)
    assert arrays["conv_in.weight"].shape[1] == 2 * 3 * 2**2  # both images, folded


@pytest.mark.slow
def test_resumed_run_ends_with_the_same_weights(data, trained, tmp_path, killed, undrawn):
    killed(train_upsampler, data / "pictures.npz", tmp_path / "up", CONFIG)
    with pytest.raises(InputError, match=r"\(log_snr was 0.0, is 1.0\)"):
        other = dataclasses.replace(CONFIG, log_snr=1.0)
        train_upsampler(data / "pictures.npz", tmp_path / "up", other)
    folder = train_upsampler(data / "pictures.npz", tmp_path / "up", CONFIG)
    first, second = (load_file(path / "model.safetensors") for path in (folder, trained))
    assert all(np.array_equal(first[name], second[name]) for name in second)


def shaken(prior):
    """With random weights everywhere: the last layers begin near zero."""
    noise = np.random.default_rng(0)
    state = jax.tree.map(
        lambda a: a + jnp.asarray(0.2 * noise.normal(size=a.shape), a.dtype), prior.denoiser.state
    )
    return priors.DiffusionPrior(
        dataclasses.replace(prior.denoiser, state=state), prior.schedule, prior.event_shape,
        prior.prediction, probe=False, num_steps=3,
    )  # fmt: skip


@pytest.mark.slow
def test_an_upsampler_is_given_a_low_resolution(trained, tmp_path):
    """The image, its level and the time each matter, and the level is not the time."""
    prior = shaken(load_prior(trained))
    low = jax.random.normal(jax.random.key(0), LOW)
    x, t = jax.random.normal(jax.random.key(1), SHAPE), 0.4

    @jax.jit
    def mean(low, log_snr, t):
        return prior.given(cascades.LowResolution(low, log_snr)).denoise(x, t)

    plain = mean(low, math.inf, t)
    np.testing.assert_allclose(plain, prior.given(low).denoise(x, t), atol=1e-5)
    for other in (mean(low + 0.1, math.inf, t), mean(low, 0.0, t), mean(low, math.inf, 0.5)):
        assert np.max(np.abs(other - plain)) > 1e-3
    # With the time at the level's place and the level at the time's.
    log_snr = -2.0 * math.log(math.tan(0.5 * math.pi * 0.2))
    swapped = mean(low, -2.0 * math.log(math.tan(0.5 * math.pi * 0.4)), 0.2)
    assert np.max(np.abs(mean(low, log_snr, 0.4) - swapped)) > 1e-3
    given = prior.given(cascades.LowResolution(low, 1.5))
    again = load_prior(save_prior(given, tmp_path / "given"))
    np.testing.assert_array_equal(again.denoise(x, t), given.denoise(x, t))
    with pytest.raises(InputError, match=r"shape \(8, 8, 3\); this upsampler was trained for \(4"):
        prior.given(x)
    with pytest.raises(InputError, match="takes no caption.*--captioned"):
        prior.given("a red circle")
    with pytest.raises(InputError, match="strength goes with the caption"):
        prior.given(low, 2.0)


@pytest.mark.slow
def test_a_stage_of_a_cascade(trained):
    """Each draw is the upsampler's, given the low resolution of that draw."""
    upsampler = shaken(load_prior(trained))
    cascade = Cascade(priors.Gaussian(jnp.zeros(LOW), 0.3), (upsampler,), cascades.Gaussian(2.0))
    draws = cascade.sample(jax.random.key(0), (2,))
    assert draws.shape == (2, *SHAPE) and np.all(np.isfinite(draws))
    assert np.max(np.abs(draws[0] - draws[1])) > 1e-3


@pytest.mark.slow
def test_with_captions(data, tmp_path, undrawn):
    folder = train_upsampler(data, tmp_path / "up", CAPTIONED, progress_bar=False)
    prior = shaken(load_prior(folder))
    low, x = jnp.zeros(LOW), jnp.ones(SHAPE)
    plain = prior.given(low).denoise(x, 0.5)
    given = prior.given("a red circle").given(low).denoise(x, 0.5)
    strong = prior.given("a red circle", 3.0).given(low).denoise(x, 0.5)
    assert np.max(np.abs(given - plain)) > 1e-4
    np.testing.assert_allclose(strong, plain + 3.0 * (given - plain), atol=2e-3)
    assert "Captions: text encoder" in (folder / "card.md").read_text()


def test_low_resolutions_are_those_of_the_shapes():
    """Of one scene the picture at 32 is what the picture at 64 gives, and so on."""
    captions, key = ["two red circles above a blue square"] * 2, jax.random.key(0)
    pictures = {size: shapes.render_batch(captions, key, size) for size in (16, 32, 64)}
    for size in (32, 16):
        np.testing.assert_allclose(lowered(pictures[2 * size], 2), pictures[size], atol=1e-6)


def test_enlarged_and_levels():
    """Bilinear by hand between the centres of pixels; levels from no noise to the declared one."""
    row = jnp.array([0.0, 4.0])[None, None, :, None]
    np.testing.assert_allclose(enlarged(row, 1, 4).ravel(), [0.0, 1.0, 3.0, 4.0], atol=1e-6)
    np.testing.assert_allclose(
        noise_share(jnp.array([math.inf, 0.0, -math.inf])), [0.0, 0.5, 1.0], atol=1e-6
    )
    low = jnp.full((4000, 2, 2, 1), 2.0)
    noised, log_snr = augmented(jax.random.key(0), low, -1.0)
    assert -1.0 <= log_snr.min() < -0.95 and log_snr.max() > 8.0
    alpha2 = jax.nn.sigmoid(log_snr)[:, None, None, None]
    noise = (noised - jnp.sqrt(alpha2) * 2.0) / jnp.sqrt(1.0 - alpha2)
    chosen = np.asarray(noise)[np.asarray(log_snr) < 5.0]  # beyond, rounding is divided by little
    # Some 13,000 numbers: 3 standard errors of a standard deviation are 2 %.
    assert abs(chosen.std() - 1.0) < 0.02 and abs(chosen.mean()) < 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 1}, "factor is 1"),
        ({"factor": 3}, "do not divide by the factor 3"),
        ({"log_snr": math.inf}, "log_snr is inf"),
        ({"init": "mnist"}, "init is not an option of an upsampler"),
        ({"patch": 3}, "do not divide by 3"),
        ({"size": 3}, "not whole blocks"),
        ({"batch_size": 25}, "too few"),
    ],
)
def test_options_that_cannot_be_used(data, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        config = dataclasses.replace(CONFIG, **options)
        train_upsampler(data / "pictures.npz", tmp_path / "up", config)
    assert not (tmp_path / "up").exists()
