"""The contrastive loss, by hand on 3 x 3: value and gradient, with duplicates and without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff.training._contrastive import contrastive_loss

SCORES = np.log(np.array([[4.0, 1.0, 1.0], [2.0, 3.0, 1.0], [2.0, 4.0, 6.0]]))
"""So that the softmax of the rows is [4 1 1]/6, [2 3 1]/6, [2 4 6]/12; of the columns
[4 2 2]/8, [1 3 4]/8, [1 1 6]/8."""
ROWS = np.array([[4, 1, 1], [2, 3, 1], [1, 2, 3]]) / 6
COLUMNS = np.array([[4, 1, 1], [2, 3, 1], [2, 4, 6]]) / 8
OWN = np.eye(3, dtype=bool)
FIRST_TWO_SAME = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], bool)
NONE = np.zeros((3, 0)), np.zeros((3, 0), bool)
evaluate = jax.jit(jax.value_and_grad(contrastive_loss, argnums=(0, 2)))


def loss_and_gradient(scores, same, negatives, is_negative):
    floats, flags = jnp.float32, jnp.asarray
    loss, gradients = evaluate(floats(scores), flags(same), floats(negatives), flags(is_negative))
    return float(loss), *(np.asarray(gradient) for gradient in gradients)


def test_without_duplicates():
    """-1/6 times the logs of 4/6, 3/6, 3/6 and of 4/8, 3/8, 6/8; softmaxes minus what is wanted."""
    loss, gradient, _ = loss_and_gradient(SCORES, OWN, *NONE)
    by_hand = -np.log([4 / 6, 3 / 6, 3 / 6, 4 / 8, 3 / 8, 6 / 8]).sum() / 6
    assert loss == pytest.approx(by_hand, rel=1e-6)
    np.testing.assert_allclose(gradient, (ROWS - OWN + COLUMNS - OWN) / 6, atol=1e-6)
    assert gradient[0, 1] == pytest.approx((1 / 6 + 1 / 8) / 6, rel=1e-5)


def test_duplicates_are_right_for_one_another():
    """The first two pairs have one caption: each of its four places is wanted with a half."""
    loss, gradient, _ = loss_and_gradient(SCORES, FIRST_TWO_SAME, *NONE)
    rows = np.log([4 / 6, 1 / 6]).mean() + np.log([2 / 6, 3 / 6]).mean() + np.log(3 / 6)
    columns = np.log([4 / 8, 2 / 8]).mean() + np.log([1 / 8, 3 / 8]).mean() + np.log(6 / 8)
    assert loss == pytest.approx(-(rows + columns) / 6, rel=1e-6)
    wanted = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(gradient, (ROWS + COLUMNS - 2 * wanted) / 6, atol=1e-6)


def test_wrong_captions_count_for_pictures_alone():
    """One of weight 6 doubles the first row's sum, and another that is hidden changes nothing."""
    negatives = np.log([[6.0, 99.0], [99.0, 99.0], [99.0, 99.0]])
    is_negative = np.array([[True, False], [False, False], [False, False]])
    loss, gradient, of_negatives = loss_and_gradient(SCORES, OWN, negatives, is_negative)
    by_hand = -np.log([4 / 12, 3 / 6, 3 / 6, 4 / 8, 3 / 8, 6 / 8]).sum() / 6
    assert loss == pytest.approx(by_hand, rel=1e-6)
    rows = np.where(np.arange(3)[:, None] == 0, ROWS / 2, ROWS)
    np.testing.assert_allclose(gradient, (rows + COLUMNS - 2 * OWN) / 6, atol=1e-6)
    np.testing.assert_allclose(of_negatives, [[1 / 12, 0], [0, 0], [0, 0]], atol=1e-6)
