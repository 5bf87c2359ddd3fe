"""Runs that are stopped, or killed, go on to the same bits; folders of other runs are refused."""

import dataclasses
import multiprocessing
import random
import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from smcdiff.errors import InputError
from smcdiff.smc import Checkpoint, particle_filter, segments
from tests.smc import killed
from tests.smc.models import LinearGaussian, observations


class Stop(Exception):
    """Ends a run."""


def filtered(checkpoint, stop=None, key=0, num_steps=12, seed=1, **options):
    """A run with a segment per step, ended after step ``stop``."""

    def progress(t, num_steps, info):
        if t == stop:
            raise Stop

    return particle_filter(
        jax.random.key(key),
        LinearGaussian(observations(num_steps + 1, seed)),
        32,
        num_steps,
        **{"num_chains": 2, **options},
        progress=progress,
        checkpoint=checkpoint,
    )


@pytest.fixture(autouse=True)
def a_segment_per_step(monkeypatch):
    monkeypatch.setattr(segments, "SECONDS", 0.0)


@pytest.fixture
def stopped(tmp_path):
    """The folder of a run that was ended after step 5."""
    with pytest.raises(Stop):
        filtered(Checkpoint(tmp_path / "run", {"problem": "walk"}, every=0.0), stop=5)
    return tmp_path / "run"


def assert_same_bits(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize("collect", [None, lambda state, info: info.t])
def test_a_run_that_progress_ends_keeps_its_last_step(collect, tmp_path):
    """However long it is until the next checkpoint is due."""
    checkpoint = Checkpoint(tmp_path / "run", every=1e6)
    with pytest.raises(Stop):
        filtered(checkpoint, stop=7, collect=collect)
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["7"]
    assert_same_bits(filtered(checkpoint, collect=collect), filtered(None, collect=collect))


@pytest.mark.parametrize("collect", [None, lambda state, info: {"t": info.t, "x": state.particles}])
@pytest.mark.parametrize("num_chains", [None, 2])
def test_a_stopped_run_goes_on_to_the_same_bits(collect, num_chains, tmp_path):
    options = {"collect": collect, "num_chains": num_chains, "store_ancestors": True}
    checkpoint = Checkpoint(tmp_path / "run", {"problem": "walk"}, every=0.0)
    for stop in (0, 5, 9):
        with pytest.raises(Stop):
            filtered(checkpoint, stop, **options)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [str(stop)]  # one is kept
    resumed = filtered(checkpoint, **options)
    assert_same_bits(resumed, filtered(None, **options))
    assert_same_bits(filtered(checkpoint, **options), resumed)  # from the last step


def test_a_resumed_run_starts_where_it_was_stopped(stopped):
    steps = []
    particle_filter(
        jax.random.key(0),
        LinearGaussian(observations(13)),
        32,
        12,
        num_chains=2,
        progress=lambda t, num_steps, info: steps.append(t),
        checkpoint=Checkpoint(stopped, {"problem": "walk"}),
    )
    assert steps == list(range(5, 13))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": 1}, "random key is"),
        ({"seed": 2}, "model is tests.smc.models.LinearGaussian"),
        ({"num_chains": 3}, "num_chains is 2 there and 3 here"),
        ({"ess_threshold": 0.25}, "ess_threshold is 0.5 there and 0.25 here"),
        ({"resampling": "residual"}, "resampling is systematic there and residual here"),
    ],
)
def test_a_folder_of_another_run_is_refused(stopped, options, message):
    with pytest.raises(InputError, match=f"of another run: {message}.*give another folder"):
        filtered(Checkpoint(stopped, {"problem": "walk"}), **options)


def test_another_identity_is_refused_at_once(stopped):
    with pytest.raises(InputError, match="problem is walk there and run here"):
        Checkpoint(stopped, {"problem": "run"})
    with pytest.raises(InputError, match="version is not given there and 2 here"):
        Checkpoint(stopped, {"problem": "walk", "version": "2"})
    # And where the folder was filled after the object was made.
    late = dataclasses.replace(Checkpoint(stopped.parent / "new", {"problem": "run"}))
    stopped.rename(stopped.parent / "new")
    with pytest.raises(InputError, match="problem is walk there and run here"):
        filtered(late)


def test_folders_that_hold_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes.txt, which is no checkpoint"):
        Checkpoint(tmp_path)
    with pytest.raises(InputError, match="is a file; give a folder"):
        Checkpoint(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("part", ["arrays", "identity", "collected"])
@pytest.mark.parametrize("damage", ["emptied", "changed"])
def test_a_damaged_checkpoint_is_refused(stopped, part, damage):
    if (part, damage) == ("identity", "changed"):
        pytest.skip("other words are another run")
    for path in (stopped / "5" / part).rglob("*"):
        if path.is_file() and path.stat().st_size:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 0xFF
            path.write_bytes(b"" if damage == "emptied" else bytes(content))
    with pytest.raises(InputError, match="cannot be read.*delete this one to start anew"):
        filtered(Checkpoint(stopped, {"problem": "walk"}))


def test_arrays_that_are_not_those_that_were_written(stopped, monkeypatch):
    """Of which orbax and tensorstore know nothing: they write no sum. One number is changed."""
    restore = ocp.Checkpointer.restore

    def damaged(*args, **options):
        found = restore(*args, **options)
        place = next(i for i, array in enumerate(found.arrays) if array.ndim)
        found.arrays[place] = found.arrays[place].at[0].add(1)
        return found

    monkeypatch.setattr(ocp.Checkpointer, "restore", damaged)
    with pytest.raises(InputError, match="not those that were written.*delete this one"):
        filtered(Checkpoint(stopped, {"problem": "walk"}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"identity": {"version": 2}}, "identity must be a dict of strings"),
        ({"identity": "walk"}, "identity must be a dict of strings"),
        ({"every": -1.0}, "every is -1.0; it must be seconds"),
        ({"every": float("nan")}, "every is nan"),
        ({"every": True}, "every is True"),
    ],
)
def test_settings_out_of_range(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        Checkpoint(tmp_path, **options)


def test_writing_waits_for_its_time(tmp_path):
    # Nothing is due in a run of milliseconds; no folder is left, since nothing was written.
    filtered(Checkpoint(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_writing_takes_a_twentieth_of_the_time_at_most(tmp_path):
    every = 1e-6
    with Checkpoint(tmp_path / "run", every=every).open({}) as writer:
        assert writer.is_due()
        start = time.perf_counter()
        writer.write(1, np.zeros(3), [])
        seconds = time.perf_counter() - start
        assert not writer.is_due()
        assert writer._pause == pytest.approx(19 * seconds, rel=0.2)


def wait_for(moment, process, folder, started):
    """Returns at the moment to kill: before the first write, in the middle of one, ..."""

    def wait_until(happened, seconds=0.01):
        while not happened():
            assert process.is_alive()
            time.sleep(seconds)

    wait_until(started.exists)
    before = set(folder.glob("*"))
    if moment == "writing":
        wait_until(lambda: list(folder.glob("*tmp*")), 0.001)
    elif moment == "late":
        wait_until(lambda: last_step(folder) >= 10)
    elif moment == "random":
        wait_until(lambda: set(folder.glob("*")) != before)
        time.sleep(random.uniform(0.0, 0.4))


def last_step(folder):
    return max((int(path.name) for path in folder.glob("*") if path.name.isdigit()), default=-1)


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
    # A fork server imports once what every run needs; each run is a process of its own.
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["orbax.checkpoint", "smcdiff.smc", killed.__name__])
    folder, output = tmp_path / "run", tmp_path / "output"
    output.mkdir()
    for moment in ("at once", "writing", "random", "late", "writing", None):
        process = server.Process(target=killed.run, args=(folder, output))
        process.start()
        if moment is not None:
            wait_for(moment, process, folder, output / f"started-{process.pid}")
            process.kill()
        process.join()
        assert process.exitcode == (0 if moment is None else -signal.SIGKILL)
        written = [path.name for path in folder.glob("*")]
        assert moment != "at once" or written == []
        assert moment != "writing" or any("tmp" in name for name in written)
        assert moment != "late" or last_step(folder) >= 10
    with np.load(output / "result.npz") as file:
        resumed = list(file.values())
    killed.run(tmp_path / "uninterrupted", output)
    with np.load(output / "result.npz") as file:
        assert_same_bits(resumed, list(file.values()))
