"""The table: numbers against closed forms, and what the terminal shows."""

import numpy as np
import pytest

from smcdiff import InputError
from tests.results.records import Y, importance, lopsided, record

COLUMNS = ["mean", "std", "5.0%", "95.0%", "mcse_mean", "mcse_std", "n_eff"]


def test_numbers_of_an_exact_posterior():
    """Posterior N(0.8 y, 0.2) of each entry, from 8,000 weighted draws of the prior."""
    numbers = importance(particles=20_000).summary()["x"]
    assert list(numbers) == COLUMNS
    deviation = 0.2**0.5
    np.testing.assert_allclose(numbers["mean"], 0.8 * Y, atol=0.03)
    np.testing.assert_allclose(numbers["std"], deviation, atol=0.03)
    np.testing.assert_allclose(numbers["5.0%"], 0.8 * Y - 1.645 * deviation, atol=0.06)
    np.testing.assert_allclose(numbers["95.0%"], 0.8 * Y + 1.645 * deviation, atol=0.06)


def test_chains_are_pooled_by_their_evidence():
    """Pooled weights 1, 3, 3 and 9 of 16 at 0, 1, 10 and 11."""
    numbers = lopsided().summary(prob=0.5)["x"]
    assert numbers["mean"] == pytest.approx((3 + 30 + 99) / 16)
    assert (numbers["25.0%"], numbers["75.0%"]) == (1.0, 11.0)


def test_numbers_rest_on_founders():
    x = np.random.default_rng(0).standard_normal((1, 100, 2))
    independent = record(np.zeros((1, 100)), samples={"x": x})
    np.testing.assert_allclose(independent.summary()["x"]["n_eff"], 100.0)
    np.testing.assert_allclose(independent.summary()["x"]["mcse_mean"], x.std(1)[0] / 10.0)
    copies = record(
        np.zeros((1, 100)),
        samples={"x": np.repeat(x[:, :20], 5, axis=1)},
        founders=np.repeat(np.arange(20), 5)[None],
    )
    np.testing.assert_allclose(copies.summary()["x"]["n_eff"], 20.0)
    few = record(np.zeros((1, 100)), samples={"x": x}, founders=np.arange(100)[None] % 4)
    for column in ("n_eff", "mcse_mean", "mcse_std"):
        assert np.all(np.isnan(few.summary()["x"][column]))


@pytest.mark.parametrize("prob", [0, 1, 90, True, -0.5])
def test_prob_must_be_a_probability(prob):
    with pytest.raises(InputError, match="prob is .*between 0 and 1"):
        record().summary(prob)
    with pytest.raises(InputError, match="prob is .*between 0 and 1"):
        record().print_summary(prob)


def printed(posterior, capsys, **options):
    posterior.print_summary(**options)
    return [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]


def test_table_has_a_row_per_entry(capsys):
    posterior = importance()
    lines = printed(posterior, capsys)
    assert lines[0] == ["site", *COLUMNS]
    assert [line[0] for line in lines[2:5]] == ["x[0]", "x[1]", "energy"]
    assert float(lines[2][1]) == pytest.approx(posterior.mean()["x"][0], rel=1e-3)
    text = " ".join(word for line in lines[5:] for word in line)
    assert "effective particles of 2 x 1000, of" in text
    assert "log evidence -2.8" in text and "+- 0.05" in text  # -2.86 exactly
    assert "compare log_evidence of num_chains=4" in text


def test_image_is_shown_by_three_of_its_entries(capsys):
    images = np.random.default_rng(0).standard_normal((2, 100, 28, 28))
    images[:, :, 3, 4] *= 10.0
    images[:, :, 0, 0] = 0.5
    lines = printed(record(samples={"x": images}), capsys)
    assert lines[2][:3] == ["x[3,", "4]", "widest"]
    assert lines[3][2] == "middle"
    assert lines[4] == ["x[0,", "0]", "narrowest", "0.5", "0", "0.5", "0.5", "0", "0", "-"]
    assert lines[5][-3:] == ["of", "784", "entries"]


def test_flags_weights_off_and_empty_sites(capsys):
    samples = {"flag": np.ones((1, 30), bool), "none": np.zeros((1, 30, 0))}
    off = record(
        np.zeros((1, 30)), samples=samples, weighted=False, log_evidence=np.full(1, np.nan)
    )
    lines = printed(off, capsys, prob=0.5)
    assert lines[2] == ["flag", "1", "0", "1", "1", "0", "0", "-"]
    text = " ".join(word for line in lines[3:] for word in line)
    assert "none" not in text and "weights were off" in text and "log evidence" not in text
