"""Training a noise-conditional classifier: it learns, loads, guides, and refuses bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import InputError, load_classifier, load_prior
from smcdiff.training import TrainConfig, train_classifier

CONFIG = TrainConfig(
    steps=60, batch_size=16, channels=(16,), learning_rate=1e-2, checkpoint_every=60
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Bright left halves (class 0) and right halves (class 1), 8 x 8."""
    labels = np.arange(128) % 2
    images = np.zeros((128, 8, 8), np.uint8)
    images[labels == 0, :, :4] = 255
    images[labels == 1, :, 4:] = 255
    file = tmp_path_factory.mktemp("data") / "halves.npz"
    np.savez(file, images=images, labels=labels)
    return file


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    return train_classifier(data, tmp_path_factory.mktemp("models") / "halves", CONFIG)


def test_learns_and_loads(trained):
    classifier = load_classifier(trained)
    left = jnp.full((8, 8, 1), -1.0).at[:, :4].set(1.0)
    for label, image in ((0, left), (1, left[:, ::-1])):
        evaluate = jax.jit(lambda log_prob, x, t: log_prob(x, t))
        log_prob = classifier.given(label)
        assert float(evaluate(log_prob, image, 0.01)) > np.log(0.9)
    assert classifier(left, 0.5).shape == (2,)
    card = (trained / "card.md").read_text()
    assert "smcdiff train classifier" in card and "Held-out accuracy by log-SNR" in card
    assert not (trained / "checkpoint.safetensors").exists()


def test_bad_input(data, trained, tmp_path):
    with pytest.raises(InputError, match="finished model"):
        train_classifier(data, trained, CONFIG)
    with pytest.raises(InputError, match="init is not an option of a classifier"):
        train_classifier(data, tmp_path / "out", TrainConfig(init="mnist"))
    with pytest.raises(InputError, match="of kind 'prior', not 'classifier'"):
        load_classifier("models/mnist")
    np.save(tmp_path / "images.npy", np.load(data)["images"])
    with pytest.raises(InputError, match="labels need an .npz"):
        train_classifier(tmp_path / "images.npy", tmp_path / "out", CONFIG)
    with pytest.raises(InputError, match="of kind 'classifier', not 'prior'"):
        load_prior(trained)
