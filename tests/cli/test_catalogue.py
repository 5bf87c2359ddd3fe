"""Catalogues and checkpoints: what `SMC` is asked to do, and bad input, with an `SMC` that does it
at once."""

import numpy as np
import pytest

from smcdiff import SMC
from smcdiff.cli import sampler
from tests.cli.inputs import RANDOM, array

ITEMS = RANDOM.uniform(-0.9, 0.9, (7, 28, 28)).astype(np.float32)


class FakeSMC(SMC):
    """Writes an empty file for each item of a share of the catalogue, in batches."""

    calls: list

    def __init__(self, model, proposal=None, *, progress_bar, **settings):
        self.progress, self.options = progress_bar, settings

    def run_batch(
        self, key, batch, prior, operator, noise, *, output, shard=(0, 1), items_per_batch=3
    ):
        ys = batch["y"]
        own = range(len(ys))[shard[0] :: shard[1]]
        for first in range(0, len(own), items_per_batch):
            numbers = own[first : first + items_per_batch]
            FakeSMC.calls.append((numbers, np.asarray(ys[list(numbers)])))
            for t in range(3):
                self.progress(t, 2, {"ess": 1.0})
            for number in numbers:
                (output / f"item-{number:06d}.nc").touch()

    def run(self, key, prior, operator, noise, *, y, checkpoint=None):
        FakeSMC.calls.append(checkpoint)
        self.progress(1, 2, {})
        raise KeyboardInterrupt  # there is no posterior to write


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(sampler, "SMC", FakeSMC)
    monkeypatch.setattr(FakeSMC, "calls", [], raising=False)
    monkeypatch.setattr("smcdiff.cli.catalogue._PAUSE", 0.0)
    return FakeSMC.calls


def test_a_file_for_each_item(smcdiff, fake, tmp_path):
    words = ["solve", "inpaint", array("items.npy", ITEMS), "--catalogue", "-o", "out"]
    code, out, err = smcdiff(*words, "--items-per-batch", "4")
    assert code == 0, err
    assert "7 of 7 posteriors are in out" in out
    assert "Catalogue: 4/7" in err  # counted in files, not in steps of a batch
    assert len(list((tmp_path / "out").iterdir())) == 7
    assert [len(numbers) for numbers, _ in fake] == [4, 3]
    numbers, ys = fake[0]
    assert ys.shape == (4, 392) and ys.dtype == np.float32
    np.testing.assert_array_equal(ys[2], ITEMS[numbers[2], :, :14].ravel())
    code, out, err = smcdiff(*words)  # nothing is refused: it goes on
    assert code == 0, err


def test_shares_of_a_catalogue_fill_one_folder(smcdiff, fake):
    words = ["solve", "deblur", array("items.npy", ITEMS), "--catalogue", "-o", "out", "--shard"]
    assert "3 of 7 posteriors are in out" in smcdiff(*words, "1/2")[1]
    assert "7 of 7 posteriors are in out" in smcdiff(*words, "0/2")[1]
    assert sorted(number for numbers, _ in fake for number in numbers) == list(range(7))


@pytest.mark.slow
def test_items_are_converted_as_single_images_are(smcdiff, fake):
    """8 bit, colours that become grey, an alpha, plain numbers, complex numbers."""
    colours = RANDOM.integers(0, 255, (3, 28, 28, 4)).astype(np.uint8)
    colours[..., 3] = 255
    matrix = array("matrix.npy", RANDOM.normal(size=(5, 784)))
    numbers = RANDOM.normal(size=(3, 5)).astype(np.float32)
    spectra = np.fft.fft2(ITEMS[:3], norm="ortho")
    for problem, items, options in (
        ("deblur", colours, []),
        ("dense", numbers, ["--matrix", matrix]),
        ("fourier", spectra, []),
    ):
        fake.clear()
        words = ["solve", problem, array("items.npy", items), "--catalogue", *options]
        code, _, err = smcdiff(*words)
        assert code == 0, err
        assert ("items.npy: four channels are taken for red, green, blue" in err) == (
            problem == "deblur"
        )
        (_, ys), = fake  # fmt: skip
        if problem == "deblur":
            grey = colours[..., :3] @ np.array([0.299, 0.587, 0.114]) / 127.5 - 1
            np.testing.assert_allclose(ys[..., 0], grey, atol=1e-6)
        if problem == "dense":
            np.testing.assert_array_equal(ys, numbers)
        if problem == "fourier":
            np.testing.assert_allclose(ys[1, 0, 0], spectra[1, 0, 0].real, rtol=1e-6)


def test_a_full_disk_keeps_finished_items(smcdiff, fake, monkeypatch, tmp_path):
    def fail(self, *_, output, **__):
        (output / "item-000000.nc").touch()
        raise OSError(28, "No space left on device", str(output / "item-000001.nc"))

    monkeypatch.setattr(FakeSMC, "run_batch", fail)
    words = ["solve", "inpaint", array("items.npy", ITEMS), "--catalogue", "-o", "out"]
    code, _, err = smcdiff(*words)
    assert code == 2 and "out/item-000001.nc: No space left on device" in err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["item-000000.nc"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--catalogue", "--catalogue needs IMAGE"),
        ("items.npy --catalogue --simulate", "--simulate goes with one image"),
        ("items.npy --catalogue --truth items.npy", "--truth goes with one image"),
        ("items.npy --catalogue --checkpoint c", "--checkpoint goes with one image"),
        ("items.npy --shard 0/2", "--shard goes with --catalogue"),
        ("items.npy --items-per-batch 2", "--items-per-batch goes with --catalogue"),
        ("items.npy --catalogue --items-per-batch 0", "'--items-per-batch'"),
        ("items.npy --catalogue --shard 2/2", "--shard 2/2: give I/N with I from 0 to N - 1"),
        ("items.npy --catalogue --shard -1/2", "--shard -1/2"),
        ("items.npy --catalogue --shard 1", "--shard 1:"),
        ("items.npy --catalogue --shard \N{SUPERSCRIPT TWO}/3", "give I/N"),
        ("none.npy --catalogue", "none.npy: no such file"),
        ("items.png --catalogue", "items.png: not an .npy file"),
        ("one.npy --catalogue", "one.npy, item 0: an array of shape (28,)"),
        ("number.npy --catalogue", "number.npy: an array of shape (); a catalogue has a first"),
        ("empty.npy --catalogue", "empty.npy: an array of shape (0, 28, 28)"),
        ("bad.npy --catalogue", "bad.npy, item 4: 1 values are NaN"),
        ("first.npy --catalogue", "first.npy, item 0: shape (1, 28, 28), but channels come last"),
        ("items.npy --checkpoint out -o out", "--checkpoint out: inside the folder of the result"),
        ("items.npy --checkpoint out/a/b -o out", "inside the folder of the result"),
    ],
)
def test_bad_input(refused, fake, words, message):
    array("items.npy", ITEMS)
    array("one.npy", ITEMS[0])
    array("number.npy", np.float32(3.0))
    array("empty.npy", ITEMS[:0])
    bad = ITEMS.copy()
    bad[4, 3, 3] = np.nan
    array("bad.npy", bad)
    array("first.npy", ITEMS[:, None])
    refused(["solve", "inpaint", *words.split()], message)
    assert not fake


def test_a_checkpoint_is_handed_on(smcdiff, fake, monkeypatch, tmp_path):
    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr("os._exit", leave)
    assert smcdiff("solve", "inpaint", "--checkpoint", "state")[0] == 130
    assert smcdiff("solve", "inpaint")[0] == 130
    assert [None if folder is None else str(folder) for folder in fake] == ["state", None]
    assert not list(tmp_path.iterdir())  # so that the same command is not refused
