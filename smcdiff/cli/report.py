"""``smcdiff report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smcdiff.results.posterior import Posterior


def report(
    file: Annotated[Path, typer.Argument(help="A posterior.nc written by smcdiff.")],
) -> None:
    """Say in plain language how far a saved posterior can be trusted.

    Example: `smcdiff report smcdiff-inpaint/posterior.nc`.
    """
    posterior = Posterior.load(file)
    typer.echo(repr(posterior))
    posterior.diagnose()
