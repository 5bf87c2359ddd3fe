"""The command line: ``smcdiff solve | sample | draw | train | captions | priors | report``."""

from smcdiff.cli.app import main as main
