"""The command line: ``smcdiff solve | sample | train | priors | report``."""

from smcdiff.cli.app import main as main
