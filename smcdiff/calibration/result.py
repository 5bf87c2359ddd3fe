"""What `smcdiff.calibrate` returns."""

from __future__ import annotations

import json
import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smcdiff.base._files import open_npz, write_whole
from smcdiff.calibration import plots
from smcdiff.calibration._record import CalibrationRecord
from smcdiff.calibration._table import table
from smcdiff.errors import InputError
from smcdiff.results import _arviz as arviz

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FORMAT = "smcdiff-calibration-1"


class Calibration(CalibrationRecord):
    """The ranks of a calibration and what they say; its fields are those of `CalibrationRecord`.

    Print it for a table. Of each quantity it has the p-value that the ranks are uniform; the mean
    rank over L, which is 0.5 of a right sampler, and smaller where draws are too large; and the
    share of truths in the central 90 % interval (in TARP's rows: in the regions of 90 % around the
    reference points), which is smaller where draws are too narrow.
    """

    def __str__(self) -> str:
        return table(self)

    def __repr__(self) -> str:
        """One line."""
        return (
            f"Calibration({len(self.simulations)} simulations, {self.num_draws} draws each,"
            f" {len(self.failures)} failures, p_value={self.p_value:.3g})"
        )

    def plot_ranks(self, **options: Any) -> np.ndarray:
        """The ranks' distribution functions less the uniform one; see `plots.plot_ranks`."""
        return plots.plot_ranks(self, **options)

    def plot_coverage(self, **options: Any) -> Axes:
        """Coverage against probability; see `plots.plot_coverage`."""
        return plots.plot_coverage(self, **options)

    def to_arviz(self) -> Any:
        """What the functions of the installed ArviZ take.

        Group ``prior_sbc`` (chain, draw; one draw per simulation), as ``arviz.plot_ecdf_pit`` of
        ArviZ 1.x reads it: of each quantity, and of TARP, the rank as a fraction in (0, 1).

        Returns:
            ``arviz.InferenceData`` for ArviZ 0.x (Python 3.11), `xarray.DataTree` for ArviZ 1.x.

        Raises:
            InputError: ArviZ is not installed.
        """
        import xarray

        everything = {**self.ranks, **self.tarp_ranks}
        fractions = {
            name: (("chain", "draw"), (ranks[None] + 0.5) / (self.num_draws + 1))
            for name, ranks in everything.items()
        }
        dataset = xarray.Dataset(fractions, {"chain": [0], "draw": self.simulations})
        tree = xarray.DataTree.from_dict({"prior_sbc": dataset})
        tree.attrs.update({"num_draws": self.num_draws, "num_failures": len(self.failures)})
        return arviz.as_arviz_takes(tree)

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Writes the calibration as an .npz file; an unfinished file never takes the name.

        Args:
            path: file to write, as .npz whatever its name.
            overwrite: replace an existing file.

        Returns:
            The path.

        Raises:
            InputError: the file exists, or cannot be written.
        """
        target = Path(path)
        if target.exists() and not overwrite:
            raise InputError(f"{target} exists; choose another name or pass overwrite=True")
        about = {
            "format": _FORMAT,
            "quantities": list(self.ranks),
            "tarp": list(self.tarp_ranks),
            "num_draws": self.num_draws,
            "failures": self.failures,
            "attrs": self.attrs,
        }
        count = len(self.simulations)
        content = BytesIO()
        np.savez_compressed(
            content,
            about=np.array(json.dumps(about, default=str)),
            ranks=np.stack([*self.ranks.values(), *self.tarp_ranks.values()]).reshape(-1, count),
            simulations=self.simulations,
            effective_draws=self.effective_draws,
        )
        write_whole(target, content.getbuffer())
        return target

    @classmethod
    def load(cls, path: str | os.PathLike) -> Calibration:
        """Reads what `save` wrote.

        Raises:
            InputError: no such file, or not a complete calibration.
        """
        with open_npz(Path(path)) as file:
            if "about" not in file.names:
                raise InputError(f"{path}: not a calibration; give a file that its save wrote")
            about = json.loads(str(file["about"]))
            if about.get("format") != _FORMAT:
                raise InputError(
                    f"{path}: has the format {about.get('format')}, and this version of smcdiff"
                    f" reads {_FORMAT}; calibrate again"
                )
            names = [*about["quantities"], *about["tarp"]]
            ranks = dict(zip(names, file["ranks"], strict=True))
            return cls(
                ranks={name: ranks[name] for name in about["quantities"]},
                tarp_ranks={name: ranks[name] for name in about["tarp"]},
                simulations=file["simulations"],
                effective_draws=file["effective_draws"],
                num_draws=about["num_draws"],
                failures={int(item): why for item, why in about["failures"].items()},
                attrs=about["attrs"],
            )
