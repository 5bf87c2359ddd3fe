"""Exceptions and warnings of bad input and failed runs, and how they name a remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CALLBACK_FAILED = "error calling callback: Traceback"
"""In JAX's error about a host callback that raised; a traceback follows, and what was raised."""
NO_DERIVATIVE = (TypeError, ValueError, NotImplementedError)
"""What JAX raises at the derivative of a callback, or of a function with a backward rule alone."""


class InputError(ValueError):
    """Input that cannot be used, found before long work starts.

    The message is one line: what is wrong (the site, the shape or the file) and the remedy.
    The command line prints it without a traceback and exits with code 2.
    """


class SamplingError(RuntimeError):
    """A run that cannot go on: no finite weight was left. Names the step and the remedy."""


class DegeneracyWarning(UserWarning):
    """A run ended well, but its numbers mean little: few particles carry its weight, for example.

    The message says what happened and what to try.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's message, after its type; of a host callback, what it raised."""
    lines = str(error).strip().splitlines()
    if CALLBACK_FAILED in "".join(lines[:1]):
        return lines[-1]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The remedy for a name that is not known: a close one, and all that there are."""
    known = list(known)
    close = difflib.get_close_matches(name.lower(), known, 1)
    start = f"did you mean '{close[0]}'? Choose" if close else "choose"
    return f"{start} from {', '.join(known)}"
