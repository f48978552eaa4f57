"""Data sources. ``data.source: NAME`` in a task is the module ``kdbench.data.sources.<NAME>`` with ``load``."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from kdbench.data import sources
from kdbench.data.dataset import Dataset
from kdbench.errors import UserError, nearest
from kdbench.spec import Data

__all__ = ["Dataset", "load"]


def load(data: Data, folder: Path | None) -> Dataset:
    """All rows of a task's data source; subsets are drawn by :meth:`Dataset.subset`.

    Args:
        data: the task's ``data`` block.
        folder: the user's data folder, None for the hub.

    Raises:
        UserError: unknown source or option, absent or damaged data.
    """
    known = [module.name for module in pkgutil.iter_modules(sources.__path__)]
    module = data.source.replace("-", "_")
    if module not in known:
        raise UserError(f"data.source: unknown source {data.source!r}{nearest(data.source, known)}")
    return importlib.import_module(f"kdbench.data.sources.{module}").load(data.options, folder)
