"""Numbers, table, file, ArviZ's export and pictures of a calibration made by hand."""

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure

from smcdiff import Calibration, InputError
from smcdiff.calibration import plots

SIMULATIONS = 200


def made(draws=19, narrow=False, **fields):
    """Uniform ranks; or those of draws that are too narrow."""
    random = np.random.default_rng(0)
    shape = (3, SIMULATIONS)
    uniform = random.beta(0.4, 0.4, shape) if narrow else random.random(shape)
    first, second, tarp = np.floor(uniform * (draws + 1)).astype(int)
    fields = {
        "ranks": {"x[0]": first, "log likelihood": second},
        "tarp_ranks": {"TARP": tarp},
        "simulations": np.arange(SIMULATIONS),
        "effective_draws": np.full(SIMULATIONS, 250.0),
        "num_draws": draws,
        "attrs": {"sampler": "SMC"},
        **fields,
    }
    return Calibration(**fields)


@pytest.mark.parametrize("draws", [9, 10])
def test_central_coverage_counts_symmetric_cells(draws):
    ranks = np.arange(draws + 1)
    found = made(
        draws, ranks={"q": ranks}, tarp_ranks={}, simulations=ranks, effective_draws=ranks + 1.0
    ).coverage("q")
    np.testing.assert_allclose(found.prob, found.share)  # each rank once: right at all levels
    assert found.prob[-1] == pytest.approx(1.0) and found.at(1.0) == pytest.approx(1.0)
    assert found.prob[0] == pytest.approx((2 if draws % 2 else 1) / (draws + 1))


def test_coverage_of_a_narrow_posterior():
    found = made(narrow=True)
    assert found.coverage("x[0]").at(0.9) < 0.8 < made().coverage("x[0]").at(0.9)
    low, high = found.coverage_band("x[0]", 0.95)
    outside = (found.coverage("x[0]").share < low) | (found.coverage("x[0]").share > high)
    assert outside.any() and low.shape == found.coverage("x[0]").prob.shape
    own = made().coverage("x[0]").share
    assert np.all((own >= low) & (own <= high))


def test_bonferroni_and_verdict():
    found = made()
    assert found.p_value == min(1.0, 3 * min(found.p_values.values())) and found.passes()
    assert not made(narrow=True).passes()
    assert not made(failures={7: "no weight is left"}).passes()


def test_table():
    text = str(made(failures={7: "no weight is left"}))
    for part in (
        "x[0]",
        "log likelihood",
        "TARP",
        "200 simulations, 19",
        "number 7: no weight",
    ):
        assert part in text
    assert "passes at 0.01" in str(made()) and "effective particles than" not in str(made())
    assert "does not pass at 0.01" in str(made(narrow=True))
    few = made(effective_draws=np.where(np.arange(SIMULATIONS) < 30, 5.0, 250.0))
    assert "15 % of the posteriors have fewer effective particles than draws" in str(few)
    assert repr(made()).startswith("Calibration(200 simulations, 19 draws each, 0 failures")


def test_save_and_load(tmp_path):
    found = made(failures={3: "failed"})
    file = found.save(tmp_path / "calibration.npz")
    again = Calibration.load(file)
    for name in ("ranks", "tarp_ranks"):
        for quantity, ranks in getattr(found, name).items():
            np.testing.assert_array_equal(getattr(again, name)[quantity], ranks)
        assert list(getattr(again, name)) == list(getattr(found, name))
    np.testing.assert_array_equal(again.effective_draws, found.effective_draws)
    assert (again.failures, again.attrs, again.num_draws) == (
        {3: "failed"}, {"sampler": "SMC"}, 19,
    )  # fmt: skip
    with pytest.raises(InputError, match="exists"):
        found.save(file)
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    with pytest.raises(InputError, match="not a calibration"):
        Calibration.load(tmp_path / "other.npz")
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read"):
        Calibration.load(file)


def test_for_arviz():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = made().to_arviz()
    group = data["prior_sbc"]
    assert group["x[0]"].dims == ("chain", "draw") and group["x[0]"].shape == (1, SIMULATIONS)
    assert 0.0 < float(group["TARP"].min()) < float(group["TARP"].max()) < 1.0


def test_rank_plots():
    several = {"right": made(), "narrow": made(narrow=True)}
    axes = plots.plot_ranks(several)
    assert [axis.get_title() for axis in axes] == ["x[0]", "log likelihood", "TARP"]
    zero, right, narrow = axes[0].lines
    (band,) = axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert np.max(np.abs(right.get_ydata())) < heights.max()
    assert narrow.get_ydata()[4] > heights.max() * 0.9 and narrow.get_ydata()[-5] < 0.0
    assert right.get_ydata()[0] == right.get_ydata()[-1] == 0.0
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == list(several)


def test_histograms():
    (axis,) = made(narrow=True).plot_ranks(names=["x[0]"], histogram=True)
    (bars,) = axis.patches
    assert bars.get_data().values[0] > 1.5  # of a density that is 1 where ranks are uniform
    assert axis.get_legend() is None


def test_coverage_plot():
    figure = Figure()
    axis = figure.subplots()
    drawn = made().plot_coverage(axis=axis)
    assert drawn is axis and drawn.get_title() == "TARP"
    _, line = drawn.lines
    np.testing.assert_allclose(line.get_ydata(), line.get_xdata(), atol=0.15)
    assert made().plot_coverage(name="x[0]").get_title() == "x[0]: central intervals"


def test_bad_plots():
    with pytest.raises(InputError, match=r"no quantity 'x\[1\]'.*choose from|did you mean"):
        made().plot_ranks(names=["x[1]"])
    with pytest.raises(InputError, match="no calibration"):
        plots.plot_coverage({})
    with pytest.raises(InputError, match="1 axes are given, and 3 quantities"):
        made().plot_ranks(axes=[Figure().subplots()])
