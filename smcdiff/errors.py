"""The one exception that bad input raises."""


class InputError(ValueError):
    """Input that cannot be used, found before long work starts.

    The message is one line: what is wrong (the site, the shape or the file) and the remedy.
    The command line prints it without a traceback and exits with code 2.
    """


class SamplingError(RuntimeError):
    """A run that cannot go on: no finite weight was left. Names the step and the remedy."""
