"""The run-time checker of annotations in the tests: beartype, to which an int is a float, too."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
