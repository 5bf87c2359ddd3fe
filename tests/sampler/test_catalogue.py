"""Many observations: right answers, one program, files that can be gone on with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import InputError, Posterior, SamplingError, exact, operators, priors, proposals
from smcdiff.diffusion.schedules import Cosine
from smcdiff.sampler import _catalogue as catalogue
from tests.sampler.models import MATRIX, NOISE, PRIOR, Y, sampler


def test_batch_is_one_call_and_right(compilations):
    smc = sampler(num_particles=500)
    ys = jnp.stack([Y, Y + 1.0, Y - 2.0])
    operator = operators.Dense(MATRIX)
    posteriors = smc.run_batch(jax.random.key(0), {"y": ys}, PRIOR, operator, NOISE)
    for y, posterior in zip(ys, posteriors, strict=True):
        truth = exact.linear_gaussian_posterior(PRIOR, MATRIX, y, NOISE)
        # The standard deviation of log Z_hat is about 0.03 here.
        np.testing.assert_allclose(posterior.log_evidence, truth.log_evidence, atol=0.15)
    key, others = jax.random.key(1), ys + 0.1
    compilations.clear()
    smc.run_batch(key, {"y": others}, PRIOR, operator, NOISE)
    assert not compilations


def test_batch_names_the_item():
    ys = jnp.stack([Y, Y + 1e5])
    with pytest.raises(InputError, match="run_batch, item 1: .*far outside"):
        sampler().run_batch(jax.random.key(0), {"y": ys}, PRIOR, operators.Dense(MATRIX), NOISE)


def test_batch_shares_what_its_items_share(monkeypatch):
    """The operator and the levels, so that they are decomposed and branched on once."""
    seen = []

    stack = catalogue.stack

    def spy(models, num_chains):
        stacked, axes = stack(models, num_chains)
        leaves = zip(jax.tree.leaves(stacked), axes, strict=True)
        seen.extend(leaf.shape for leaf, axis in leaves if axis == 0)
        return stacked, axes

    monkeypatch.setattr(catalogue, "stack", spy)
    operator = operators.Dense(np.asarray(MATRIX))
    ys = np.stack([Y, Y + 1.0])
    smc = sampler(num_particles=64, num_steps=6)
    smc.run_batch(jax.random.key(0), {"y": ys}, PRIOR, operator, 0.3)
    assert seen == [(2, 2)]  # y alone


def test_batch_of_different_shapes():
    with pytest.raises(InputError, match="leading axes"):
        sampler().run_batch(jax.random.key(0), {"y": Y, "noise": jnp.ones(3)}, PRIOR, MATRIX)


@pytest.mark.usefixtures("unchecked")
def test_batches_that_are_none():
    with pytest.raises(InputError, match="the batch is a list"):
        sampler().run_batch(jax.random.key(0), [Y, Y], PRIOR, operators.Dense(MATRIX), NOISE)


OPERATOR = operators.Dense(MATRIX)
YS = np.stack([np.asarray(Y) + shift for shift in (0.0, 1.0, -2.0, 0.5, 1.5)])
KEY = jax.random.key(4)


def batch(ys=YS, prior=PRIOR, proposal=None, **options):
    smc = sampler(proposal, num_particles=64, num_steps=6)
    return smc.run_batch(KEY, {"y": ys}, prior, OPERATOR, NOISE, **options)


@pytest.fixture(scope="module")
def alone():
    """Each item as a run of its own."""
    smc = sampler(num_particles=64, num_steps=6)
    keys = [jax.random.fold_in(KEY, item) for item in range(len(YS))]
    return [smc.run(k, PRIOR, OPERATOR, NOISE, y=y) for k, y in zip(keys, YS, strict=True)]


def assert_same(found, expected):
    """Up to rounding: programs of another size differ by it."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.samples["x"], other.samples["x"], atol=1e-3)
        np.testing.assert_allclose(one.log_evidence, other.log_evidence, atol=1e-3)


@pytest.mark.parametrize("items_per_batch", [pytest.param(None, marks=pytest.mark.slow), 1, 2])
def test_an_item_is_its_run_alone_whatever_stands_beside_it(alone, items_per_batch):
    assert_same(batch(items_per_batch=items_per_batch), alone)


def test_files_of_a_catalogue_larger_than_memory(alone, tmp_path):
    """From a memory-mapped file, in batches; what is there is not run again."""
    np.save(tmp_path / "ys.npy", YS)
    mapped = np.load(tmp_path / "ys.npy", mmap_mode="r")
    files = batch(mapped, output=tmp_path / "out", items_per_batch=2)
    assert [file.name for file in files] == [f"item-{item:06d}.nc" for item in range(5)]
    assert_same([Posterior.load(file) for file in files], alone)
    files[3].unlink()
    before = files[0].stat().st_mtime_ns
    batch(mapped, output=tmp_path / "out", items_per_batch=2)
    assert files[0].stat().st_mtime_ns == before
    assert_same([Posterior.load(files[3])], alone[3:4])


def test_parts_of_a_catalogue_are_the_whole(alone, tmp_path):
    for part in (1, 0):
        batch(output=tmp_path, shard=(part, 2))
    files = sorted(tmp_path.glob("item-*.nc"))
    assert_same([Posterior.load(file) for file in files], alone)


def test_a_folder_of_another_catalogue_is_refused(tmp_path):
    batch(YS[:2], output=tmp_path)
    with pytest.raises(InputError, match=r"results are of another catalogue \(items differ\)"):
        batch(YS[:3], output=tmp_path)
    with pytest.raises(InputError, match=r"another catalogue \(.*proposal.* differ\)"):
        batch(YS[:2], proposal=proposals.Bootstrap(), output=tmp_path)
    with pytest.raises(InputError, match=r"item 1: .*item-000001.nc is of other arguments"):
        batch(np.stack([YS[0], YS[1] + 1.0]), output=tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        batch(YS[:2], output=tmp_path / "other")


def test_an_item_that_fails_does_not_take_the_others_along(tmp_path):
    """The denoiser fails where x has the sign of item 1's data."""

    def denoiser(x, t):
        return jnp.where((x[0] > 3.0) & (t < 0.1), jnp.nan, 0.5 * x)

    prior = priors.DiffusionPrior(denoiser, Cosine(), (3,), data_variance=4.0, probe=False)
    ys = np.array([[0.0, 0.0], [30.0, 0.0], [0.0, 0.1]])
    with pytest.raises(
        SamplingError, match=r"1 of 3 items failed \(1\), .*run_batch, item 1: site 'x'"
    ):
        batch(ys, prior, output=tmp_path)
    assert [f.name for f in sorted(tmp_path.glob("*.nc"))] == ["item-000000.nc", "item-000002.nc"]


def test_an_item_of_bad_data_does_not_take_the_others_along(alone, tmp_path):
    """The first item, too, and in the same batch as a good one; all bad is said at once."""
    ys = YS.copy()
    ys[0] = ys[3] = np.nan
    with pytest.raises(
        InputError, match=r"2 of 5 items failed \(0, 3\), .*run_batch, item 0: .*NaN"
    ):
        batch(ys, output=tmp_path, items_per_batch=2)
    files = sorted(tmp_path.glob("*.nc"))
    assert [file.name for file in files] == [f"item-{item:06d}.nc" for item in (1, 2, 4)]
    assert_same([Posterior.load(file) for file in files], [alone[1], alone[2], alone[4]])
    with pytest.raises(InputError, match="^run_batch, item 0: "):
        batch(np.full_like(YS, np.nan), output=tmp_path / "none")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"shard": (-1, 2)}, "shard is -1 of 2, .*i must lie in 0 to n - 1"),
        ({"shard": (2, 2)}, "shard is 2 of 2"),
        ({"shard": (0, 9)}, "at most the number of items"),
        ({"shard": 2}, "give .i, n., for example .0, 4."),
        ({"items_per_batch": 0}, "items_per_batch is 0"),
    ],
)
def test_options_out_of_range(options, match):
    with pytest.raises(InputError, match=match):
        batch(**options)
