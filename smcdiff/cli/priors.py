"""``smcdiff priors``."""

from __future__ import annotations

from smcdiff.store.shipped import list_priors


def priors() -> None:
    """List the priors that ship with the package.

    A name is what `smcdiff solve --prior` and smcdiff.load_prior take; so is the folder of a prior
    that `smcdiff train` made.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "shape of an event", "what", "licence of the data")
    table.add_column("folder", overflow="fold")
    for info in list_priors():
        shape = " x ".join(str(size) for size in info.event_shape)
        table.add_row(info.name, shape, info.description, info.licence, str(info.path))
    Console().print(table)
