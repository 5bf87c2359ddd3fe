"""The commands put together, and what happens on an error."""

from __future__ import annotations

import sys

import typer

from smcdiff.cli import priors, report, sample, solve, train
from smcdiff.errors import InputError, SamplingError
from smcdiff.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Bayesian inverse problems with diffusion priors, by Sequential Monte Carlo.",
)
app.command("solve")(solve.solve)
app.command("sample")(sample.sample)
app.add_typer(train.app, name="train")
app.command("priors")(priors.priors)
app.command("report")(report.report)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit()


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def main() -> None:
    """Runs the command line; bad input ends with one line on standard error and exit code 2."""
    try:
        app()
    except (InputError, SamplingError) as error:
        print(f"smcdiff: {error}", file=sys.stderr)
        sys.exit(2)
