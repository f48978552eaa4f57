"""Data sources. ``data.source: NAME`` in a task is a set of ``kdbench/data/sets/<NAME>.yaml``, read from the user's
folder or the hub, or the module ``kdbench.data.sources.<NAME>`` with ``load``.
"""

from __future__ import annotations

import importlib
import pkgutil

from kdbench.data import sources, tabular
from kdbench.data.dataset import Dataset
from kdbench.data.place import Place
from kdbench.data.setspec import set_names, set_spec
from kdbench.errors import UserError, nearest
from kdbench.spec import Data

__all__ = ["Dataset", "Place", "load"]


def load(data: Data, place: Place) -> Dataset:
    """All rows of a task's data source; subsets are drawn by :meth:`Dataset.subset`.

    Raises:
        UserError: unknown source or option, absent or damaged data.
    """
    described = set_names()
    if data.source in described:
        return tabular.load(set_spec(data.source), data.options, place)
    modules = [module.name for module in pkgutil.iter_modules(sources.__path__)]
    module = data.source.replace("-", "_")
    if module not in modules:
        hint = nearest(data.source, [*described, *(name.replace("_", "-") for name in modules)])
        raise UserError(f"data.source: unknown source {data.source!r}{hint}")
    found: Dataset = importlib.import_module(f"kdbench.data.sources.{module}").load(data.options, place)
    return found
