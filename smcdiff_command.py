"""The command ``smcdiff``, from its first moment on.

Outside the package: importing any part of that takes seconds, and Ctrl-C would end in a traceback.
"""

import os
import signal
import sys

_INTERRUPTED = 130


def _leave(*_):
    """Ends the process at once; an exception could be caught by what is being imported."""
    os.write(2, b"smcdiff: interrupted\n")
    os._exit(_INTERRUPTED)


def main() -> None:
    """Runs the command line; see `smcdiff.cli.app.main`."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a shell has a job in the background ignore it
        signal.signal(signal.SIGINT, _leave)
    from smcdiff.cli import main as run

    signal.signal(signal.SIGINT, before)
    sys.exit(run())
