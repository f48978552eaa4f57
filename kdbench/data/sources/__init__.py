"""One module a data source: ``load(options: dict, place: Place) -> Dataset``, and ``FACTS`` about it.

A plug-in's module is one under the entry point group ``kdbench.sources``. Importing a source imports no torch; ``load``
does.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from types import ModuleType

from kdbench.base import plugins


@functools.cache
def _modules() -> dict[str, str]:
    """Name of a source, as tasks spell it, to its module; those here go before a plug-in's of the same name."""
    own = {info.name.replace("_", "-"): f"{__name__}.{info.name}" for info in pkgutil.iter_modules(__path__)}
    return plugins.packages(plugins.SOURCES) | own


def names() -> list[str]:
    """Every source that is a module, as tasks spell it."""
    return list(_modules())


def module(name: str) -> ModuleType | None:
    """The module of a source, None if there is none of this name."""
    found = _modules().get(name.replace("_", "-"))
    return importlib.import_module(found) if found is not None else None
