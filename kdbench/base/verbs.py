"""Packages that are verbs too: ``kdbench.sweep`` holds how sweeps work, and ``kdbench.sweep(...)`` makes one."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

TARGET = "__verb__"


class _Verb(ModuleType):
    """A package that can be called; what it calls is imported then."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module, _, name = getattr(self, TARGET).partition(":")
        return getattr(importlib.import_module(module), name)(*args, **kwargs)


def is_verb(package: str, target: str) -> None:
    """Makes a package that is being imported callable; ``target`` is ``module:function``."""
    module = sys.modules[package]
    module.__class__ = _Verb
    setattr(module, TARGET, target)
