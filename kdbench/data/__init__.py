"""Data sources. ``data.source: NAME`` in a task is a set of ``kdbench/data/sets/<NAME>.yaml``, read from the user's
folder or the hub, or the module ``kdbench.data.sources.<NAME>`` with ``load``. Importing this imports no torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from kdbench.data.place import Place
from kdbench.data.setspec import set_names, set_spec
from kdbench.errors import UserError, nearest
from kdbench.spec import Data

if TYPE_CHECKING:
    from kdbench.data.dataset import Dataset

__all__ = ["Place", "load"]


def load(data: Data, place: Place) -> Dataset:
    """All rows of a task's data source; subsets are drawn by ``Dataset.subset``.

    Raises:
        UserError: unknown source or option, absent or damaged data.
    """
    described = set_names()
    if data.source in described:
        from kdbench.data import tabular

        return tabular.load(set_spec(data.source), data.options, place)
    from kdbench.data import sources

    modules = [module.name for module in pkgutil.iter_modules(sources.__path__)]
    module = data.source.replace("-", "_")
    if module not in modules:
        hint = nearest(data.source, [*described, *(name.replace("_", "-") for name in modules)])
        raise UserError(f"data.source: unknown source {data.source!r}{hint}")
    found: Dataset = importlib.import_module(f"kdbench.data.sources.{module}").load(data.options, place)
    return found
