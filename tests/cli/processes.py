"""The command line in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

_MAIN = """
import resource, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
limit = {limit}
if limit is not None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from smcdiff.cli import main
main()
"""


def start(folder, *words, limit=None):
    """Starts a command in a folder; files may not grow beyond ``limit`` bytes, as on a full disk.

    (No ``preexec_fn``: forking a process that has used JAX warns.)
    """
    return subprocess.Popen(
        [sys.executable, "-c", _MAIN.format(limit=limit), *map(str, words)],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
