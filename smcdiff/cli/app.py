"""The commands put together, and what happens on an error."""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import Any, NoReturn

import typer

from smcdiff._version import __version__
from smcdiff.cli import captions, draw, priors, report, sample, solve, train
from smcdiff.cli.output import note
from smcdiff.errors import InputError, SamplingError

# Typer keeps its base class of usage errors to itself, under a name that changes with its versions.
_UsageError: type[Exception] = typer.BadParameter.mro()[1]
_INTERRUPTED = 130

app = typer.Typer(
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Bayesian inverse problems with diffusion priors, by Sequential Monte Carlo.",
)
app.command("solve")(solve.solve)
app.command("sample")(sample.sample)
app.command("draw")(draw.draw)
app.add_typer(train.app, name="train")
app.command("captions")(captions.captions)
app.command("priors")(priors.priors)
app.command("report")(report.report)


def _show_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit()
    return wanted


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def main() -> None:
    """Runs the command line.

    Bad input ends with one line on standard error and exit code 2, Ctrl-C with exit code 130.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error does
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note
            code = app(sys.argv[1:] or ["--help"], prog_name="smcdiff", standalone_mode=False)
    except (InputError, SamplingError) as error:
        _stop(str(error))
    except _UsageError as error:
        _stop(_usage(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _stop(f"{where}{error.strerror or error}; see that it can be read and written")
    except (KeyboardInterrupt, typer.Abort):
        _interrupted()
    except Exception as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _stop(
            "out of memory; fewer particles, chains or draws need less, or a smaller --batch-size"
        )
    if code == _INTERRUPTED:  # newer versions of Typer hand Ctrl-C on as a code
        _interrupted()
    sys.exit(code)


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """Shows a warning as a line without the place in the code."""
    note(str(message))


def _stop(message: str) -> NoReturn:
    print(f"smcdiff: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _usage(error) -> str:
    """What is wrong with the words of the command line, and where its manual is."""
    context = getattr(error, "ctx", None)
    command = "smcdiff" if context is None else context.command_path
    message = error.format_message().rstrip(".")
    joint = " See" if message.endswith("?") else "; see"
    return f"{message}{joint} `{command} --help`"


def _interrupted() -> NoReturn:
    """Ends the process, and with it compiled code that still runs in another thread."""
    print("smcdiff: interrupted", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by who started the process
            stream.flush()
    os._exit(_INTERRUPTED)
