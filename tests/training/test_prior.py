"""Training: learns, resumes to the same bits, writes a prior that loads, and refuses bad input."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from smcdiff import InputError, load_prior, schedules
from smcdiff.training import TrainConfig, train
from smcdiff.training._data import batch_indices, hide_labels, load_images, load_labels

CONFIG = TrainConfig(
    steps=8,
    batch_size=4,
    channels=(16,),
    checkpoint_every=4,
    sample_every=8,
    licence="none, made up",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of 8 x 8 with one bright column."""
    file = tmp_path_factory.mktemp("data") / "columns.npy"
    columns = np.random.default_rng(0).integers(0, 8, 64)
    images = np.zeros((64, 8, 8), np.uint8)
    images[np.arange(64), :, columns] = 255
    np.save(file, images)
    return file


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("priors") / "columns", CONFIG)


def test_folder_is_complete(trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {"config.json", "model.safetensors", "card.md", "samples.png"}
    card = (trained / "card.md").read_text()
    assert "smcdiff train" in card and "--steps 8" in card and "--channels 16" in card
    assert "none, made up" in card and "| 0 |" in card
    assert load_prior(trained).event_shape == (8, 8, 1)
    kinds = {array.dtype for array in load_file(trained / "model.safetensors").values()}
    assert kinds == {np.dtype(np.float16)}


@pytest.mark.slow
def test_card_names_every_run_that_led_to_the_weights(data, trained, tmp_path):
    config = dataclasses.replace(CONFIG, steps=1, init=str(trained), seed=1)
    card = (train(data, tmp_path / "more", config) / "card.md").read_text()
    commands = [line for line in card.splitlines() if line.startswith("    smcdiff train")]
    assert ["--steps 8" in commands[0], "--steps 1" in commands[1]] == [True, True]
    assert f"--init {trained}" in commands[1]
    with pytest.raises(InputError, match="no prior named 'mnits'; did you mean 'mnist'"):
        train(data, tmp_path / "none", dataclasses.replace(CONFIG, init="mnits"))


@pytest.mark.slow
def test_labels_make_a_prior_of_each_class(data, trained, tmp_path):
    """An unconditional start knows no class; training moves the two classes and "none" apart."""
    images = np.load(data)
    columns = images[:, 0].argmax(axis=1)
    np.savez(tmp_path / "labelled.npz", images=images, labels=columns // 4)
    config = dataclasses.replace(CONFIG, labels=True, init=str(trained))
    folder = train(tmp_path / "labelled.npz", tmp_path / "classes", config)
    assert "--labels" in (folder / "card.md").read_text()
    embedding = load_file(folder / "model.safetensors")["class_embedding.weight"]
    distances = np.linalg.norm(embedding[:, None] - embedding[None], axis=-1)
    assert embedding.shape == (3, 64) and np.all(distances[~np.eye(3, dtype=bool)] > 1e-4)
    prior, x = load_prior(folder), jnp.ones((8, 8, 1))
    denoise = jax.jit(lambda prior, x: prior.denoise(x, 0.9))  # of any class: one program
    first, second, none = (denoise(p, x) for p in (prior.given(0), prior.given(1), prior))
    assert np.any(first != second) and np.any(first != none)
    with pytest.raises(InputError, match="class 2: this prior has the classes 0 to 1"):
        prior.given(np.int64(2))
    with pytest.raises(InputError, match="knows no classes"):
        load_prior(trained).given(0)


def test_labels_that_cannot_be_used(data, tmp_path):
    with pytest.raises(InputError, match="labels need an .npz"):
        load_labels(data, 64)
    np.savez(tmp_path / "none.npz", images=np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(InputError, match="no array 'y_train' or 'labels'"):
        load_labels(tmp_path / "none.npz", 3)
    np.savez(tmp_path / "few.npz", images=np.zeros((3, 8, 8), np.uint8), labels=np.zeros(2, int))
    with pytest.raises(InputError, match="each of the 3 images"):
        load_labels(tmp_path / "few.npz", 3)


def test_hidden_labels_are_a_function_of_the_step():
    labels = np.arange(1000, dtype=np.int32) % 3
    first, again, other = (hide_labels(labels, 0.2, 3, step, seed=0) for step in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert 140 < np.sum(first == 3) < 260  # 200, standard deviation 13
    assert np.array_equal(first[first < 3], labels[first < 3])


def test_resumed_run_ends_with_the_same_weights(data, trained, tmp_path, killed):
    killed(train, data, tmp_path / "prior", CONFIG)
    assert [path.name for path in (tmp_path / "prior").iterdir()] == ["checkpoint.safetensors"]
    other = dataclasses.replace(CONFIG, learning_rate=1e-3)
    with pytest.raises(InputError, match=r"\(learning_rate was 0.0015, is 0.001\); use the same"):
        train(data, tmp_path / "prior", other)
    resumed = load_file(train(data, tmp_path / "prior", CONFIG) / "model.safetensors")
    whole = load_file(trained / "model.safetensors")
    assert all(np.array_equal(resumed[name], whole[name]) for name in whole)


def test_checkpoint_of_another_configuration(data, tmp_path, trained):
    (tmp_path / "prior").mkdir()
    weights = (trained / "model.safetensors").read_bytes()
    (tmp_path / "prior" / "checkpoint.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match="another configuration"):
        train(data, tmp_path / "prior", CONFIG)
    (tmp_path / "prior" / "checkpoint.safetensors").write_bytes(weights[:100])
    with pytest.raises(InputError, match="the checkpoint cannot be read"):
        train(data, tmp_path / "prior", CONFIG)


def test_finished_prior_is_not_overwritten(data, trained):
    with pytest.raises(InputError, match="finished model"):
        train(data, trained, CONFIG)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"prediction": "w"}, "prediction is 'w'"),
        ({"label_dropout": 0.0}, "label_dropout is 0.0"),
        ({"patch": 3}, "do not divide by 3"),
        ({"batch_size": 60}, "too few"),
    ],
)
def test_options_that_cannot_be_used(data, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        train(
            data, tmp_path / "prior", TrainConfig(**{"channels": (16,), "batch_size": 4, **options})
        )


def test_images_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_images(tmp_path / "none.npz")
    np.save(tmp_path / "floats.npy", np.zeros((3, 8, 8)))
    with pytest.raises(InputError, match="uint8"):
        load_images(tmp_path / "floats.npy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no PNG"):
        load_images(tmp_path / "empty")
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(InputError, match="name the one"):
        load_images(tmp_path / "two.npz")


def test_each_epoch_is_another_permutation():
    first = [batch_indices(step, 4, 12, seed=1) for step in range(3)]
    second = [batch_indices(step, 4, 12, seed=1) for step in range(3, 6)]
    assert sorted(np.concatenate(first)) == sorted(np.concatenate(second)) == list(range(12))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first[1], batch_indices(1, 4, 12, seed=1))


@pytest.mark.slow
def test_images_on_a_dark_ground_make_a_prior_that_loads(tmp_path):
    """64 x 64, of norm above 50: under the usual schedule half of the noise would be signal."""
    images = np.zeros((12, 64, 64), np.uint8)
    images[np.arange(12), 20:40, 3 * np.arange(12)] = 255
    np.save(tmp_path / "dark.npy", images)
    config = TrainConfig(steps=1, batch_size=2, channels=(16,), patch=8)
    seen = []
    folder = train(
        tmp_path / "dark.npy", tmp_path / "prior", config,
        progress_bar=lambda *arguments: seen.append(arguments[:2]),
    )  # fmt: skip
    assert seen == [(1, 1)]
    stored = json.loads((folder / "config.json").read_text())
    assert stored["data_norm"] > 60.0
    prior = load_prior(folder)
    left = float(np.exp(0.5 * prior.schedule.log_snr(prior.schedule.t_max)))
    assert left * stored["data_norm"] < 0.501
    assert prior.schedule.t_max > schedules.Cosine().t_max


@pytest.mark.slow
def test_progress_that_raises_ends_the_run(data, tmp_path):
    """Between two steps: the checkpoint of the steps before is whole, and the run resumes."""

    def stop(t, num_steps, info):
        if t == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "prior", CONFIG, progress_bar=stop)
    assert [path.name for path in (tmp_path / "prior").iterdir()] == ["checkpoint.safetensors"]
    train(data, tmp_path / "prior", CONFIG, progress_bar=False)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "other", dataclasses.replace(CONFIG, checkpoint_every=8),
              progress_bar=stop)  # fmt: skip
    assert not (tmp_path / "other").exists()


def test_the_learning_rate_never_rises_after_the_warm_up():
    for schedule in ("cosine", "linear", "constant"):
        config = TrainConfig(steps=20, learning_rate=1e-7, schedule=schedule)
        optimiser = config.optimiser()
        state, sizes = optimiser.init(np.float32(1.0)), []
        for _ in range(20):
            update, state = optimiser.update(np.float32(1.0), state)
            sizes.append(abs(float(update)))
        assert max(sizes) < 1.01e-7
