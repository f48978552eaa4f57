"""Data sources. ``data.source: NAME`` in a task is a set of ``kdbench/data/sets/<NAME>.yaml``, read from the user's
folder or the hub, or the module ``kdbench.data.sources.<NAME>``. Importing this imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdbench.base.errors import UserError, nearest
from kdbench.data import sources
from kdbench.data.decode.place import Place
from kdbench.data.decode.specification import set_names, set_spec, shared_name
from kdbench.specs.data import Data

if TYPE_CHECKING:
    from kdbench.data.feed.dataset import Dataset

__all__ = ["Place", "load", "names", "unknown"]


def load(data: Data, place: Place) -> Dataset:
    """All rows of a task's data source; subsets are drawn by ``Dataset.subset``.

    Raises:
        UserError: unknown source or option, absent or damaged data, an input that cannot be made of the others.
    """
    from kdbench.data.feed.reduced import with_reduced

    if data.source in set_names():
        from kdbench.data.feed import described

        return with_reduced(described.load(set_spec(data.source), data.options, place), data.inputs)
    module = sources.module(data.source)
    if module is None:
        raise UserError(unknown(data.source))
    return with_reduced(module.load(data.options, place), data.inputs)


def names() -> list[str]:
    """Every data source, as tasks spell it."""
    return [*set_names(), *sources.names()]


def unknown(source: str) -> str:
    """The line on a source that there is not, with the nearest name."""
    if (shared := shared_name(source)) is not None:
        return f"data.source: {shared}"
    return f"data.source: unknown source {source!r}{nearest(source, names())}"
