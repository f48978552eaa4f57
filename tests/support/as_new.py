"""A process as it was before it was told of paths and Python objects, so that a test's own end with the test."""

from __future__ import annotations

import sys

from plugged import CACHES

from kdbench.base import plugins
from kdbench.specs import local, nets, registry


def told() -> bool:
    """Whether anything was registered by path or as an object."""
    return bool(local._given or local._modules or nets._declared or registry._added_methods or registry._added_tasks)


def forget() -> None:
    """As a process that was told of nothing yet."""
    local._given.clear()
    local._modules.clear()
    nets._declared.clear()
    registry._added_methods.clear()
    registry._added_tasks.clear()
    plugins._folders.of.clear()
    for name in [name for name in sys.modules if name.startswith(local.PACKAGE)]:
        del sys.modules[name]
    for cached in CACHES:
        cached.cache_clear()
