"""``python -m smcdiff``, the same as the command ``smcdiff``."""

from smcdiff.cli import main

main()
