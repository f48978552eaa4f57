"""One module a data source: ``load(options: dict, place: Place) -> Dataset``, and ``FACTS`` about it.

Importing a source imports no torch; ``load`` does.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def names() -> list[str]:
    """Every source that is a module, as tasks spell it."""
    return [module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)]


def module(name: str) -> ModuleType | None:
    """The module of a source, None if there is none of this name."""
    spelled = name.replace("_", "-")
    return importlib.import_module(f"{__name__}.{spelled.replace('-', '_')}") if spelled in names() else None
