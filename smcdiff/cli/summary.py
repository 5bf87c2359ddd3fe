"""What ``smcdiff solve`` and ``draw`` show of a posterior: a picture, and a table."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from smcdiff.base._files import write_whole
from smcdiff.cli.problems import Measurement
from smcdiff.diagnostics.metrics import psnr
from smcdiff.results import plots
from smcdiff.results._diagnosis import diagnose
from smcdiff.results._evidence import evidence_in_words
from smcdiff.results._particles import of_chains
from smcdiff.results.posterior import Posterior


def draw(
    measured: Measurement, posterior: Posterior, y: np.ndarray, clean: np.ndarray | None, file: Path
) -> Path:
    """Writes the picture of a solved problem.

    Args:
        measured: how the observation arose.
        posterior: the result.
        y: the observation.
        clean: the true image, where it is known.
        file: PNG to write.

    Returns:
        The file.
    """
    title = f"{measured.name}: log evidence {evidence_in_words(posterior)}"
    figure = plots.plot_solution(posterior, measured.picture(y), clean, title=title)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    write_whole(file, picture.getvalue())
    return file


def summarise(
    posterior: Posterior,
    clean: np.ndarray | None,
    seconds: float,
    files: list[Path],
    about: Mapping[str, str] | None = None,
) -> None:
    """Prints the table at the end, and what is wrong, if anything is.

    Args:
        posterior: the result.
        clean: the true image, where it is known.
        seconds: wall time of the run.
        files: what was written.
        about: rows to begin with.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    particles = posterior.log_weights.shape[1]
    rows: dict[str, Any] = {
        **{name: escape(text) for name, text in (about or {}).items()},
        "proposal": f"{posterior.attrs['proposal']}: {posterior.attrs['proposal_reason']}",
        "log evidence": evidence_in_words(posterior),
        "ESS at the end": f"{of_chains(posterior.ess[:, -1], 1)} of {particles}",
    }
    if clean is not None:
        rows["PSNR of the mean"] = (
            f"{float(psnr(jnp.asarray(posterior.mean()['x']), jnp.asarray(clean))):.1f} dB"
        )
    rows["seconds"] = f"{seconds:.0f}"
    rows["written"] = ", ".join(str(file) for file in files)
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, str(value))
    console = Console()
    console.print(table)
    diagnosis = diagnose(posterior)
    for finding in filter(None, (*diagnosis.findings, diagnosis.untold)):
        console.print(f"[yellow]note:[/yellow] {finding}", soft_wrap=True)
