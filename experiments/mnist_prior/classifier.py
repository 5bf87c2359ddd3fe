"""A small classifier of MNIST digits: the judge of prior samples and of solutions.

    python experiments/mnist_prior/classifier.py    # trains it, about 2 minutes on two cores

Two strided convolutions and two dense layers, trained on the 60,000 training images with shifts of
up to 2 pixels; weights in classifier.safetensors beside this file, test accuracy in results.md.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, traverse_util
from safetensors.numpy import load_file, save_file

from smcdiff.base._pixels import to_unit_range

HERE = Path(__file__).parent
DATA = HERE.parents[2] / "shared" / "data" / "mnist" / "mnist.npz"
WEIGHTS = HERE / "classifier.safetensors"


class Classifier(nnx.Module):
    """(b, 28, 28, 1) in [-1, 1] to (b, 10) logits."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.first = nnx.Conv(1, 16, (5, 5), strides=2, rngs=rngs)
        self.second = nnx.Conv(16, 32, (5, 5), strides=2, rngs=rngs)
        self.hidden = nnx.Linear(7 * 7 * 32, 128, rngs=rngs)
        self.out = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x):
        x = jax.nn.relu(self.first(x))
        x = jax.nn.relu(self.second(x))
        x = jax.nn.relu(self.hidden(x.reshape(len(x), -1)))
        return self.out(x)


def load():
    """A jitted function from images (n, 28, 28, 1) to class probabilities (n, 10)."""
    model = nnx.eval_shape(lambda: Classifier(rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    flat = {tuple(name.split(".")): jnp.asarray(v) for name, v in load_file(WEIGHTS).items()}
    nnx.replace_by_pure_dict(state, traverse_util.unflatten_dict(flat))

    @jax.jit
    def probabilities(images):
        return jax.nn.softmax(nnx.merge(graph, state)(images))

    return probabilities


def shifted(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The batch, moved by up to 2 pixels each way (one shift a batch)."""
    down, right = generator.integers(-2, 3, 2)
    return np.roll(images, (down, right), (1, 2))


def train(steps: int = 2500, batch: int = 128) -> None:
    """Trains the classifier and writes its weights."""
    with np.load(DATA) as arrays:
        images, labels = arrays["x_train"][..., None], arrays["y_train"]
    graph, params = nnx.split(nnx.jit(lambda: Classifier(rngs=nnx.Rngs(0)))())
    optimiser = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    @jax.jit
    def step(params, state, x, y):
        def loss(params):
            logits = nnx.merge(graph, params)(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    state, generator = optimiser.init(params), np.random.default_rng(0)
    for index in range(steps):
        chosen = generator.integers(0, len(images), batch)
        x = to_unit_range(shifted(images[chosen], generator))
        params, state, value = step(params, state, x, labels[chosen])
        if index % 250 == 249:
            print(f"step {index + 1}: loss {float(value):.4f}", flush=True)
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(params))
    save_file({".".join(map(str, k)): np.asarray(v) for k, v in flat.items()}, WEIGHTS)


def accuracy() -> float:
    """On the 10,000 test images."""
    with np.load(DATA) as arrays:
        images, labels = to_unit_range(arrays["x_test"][..., None]), arrays["y_test"]
    probabilities = load()
    guesses = [np.argmax(probabilities(part), -1) for part in np.split(images, 10)]
    return float(np.mean(np.concatenate(guesses) == labels))


if __name__ == "__main__":
    train()
    print(f"test accuracy {accuracy():.4f}")
