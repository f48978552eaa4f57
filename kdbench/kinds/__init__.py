"""Kinds of tasks by name: what targets are, the task's own loss, its metrics. A kind is a file.

``kind: NAME`` in a task is ``KIND`` of the module ``kdbench.kinds.<name>``, or of a plug-in's module under the entry
point group ``kdbench.kinds``. Looking one up imports no torch.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Collection, Iterable, Mapping

from kdbench.base import plugins
from kdbench.base.errors import UserError, nearest
from kdbench.kinds.base import Kind, Metric

__all__ = ["Kind", "Metric", "current", "kind", "metrics", "names", "refusal", "serves"]

_NO_KIND = {"base", "contrastive", "outlines", "predicted", "pretexts", "written"}
OLD_NAMES = {"crossmodal": "classification"}
"""What older task files, cards and records say: that a pair's inputs differ was once a kind."""


@functools.cache
def _modules() -> dict[str, str]:
    """Name of a kind to its module.

    Raises:
        UserError: a plug-in takes the name of one that is there.
    """
    own = [module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NO_KIND]
    found = {name: f"{__name__}.{name}" for name in own}
    for name, module in plugins.packages(plugins.KINDS).items():
        if name in found:
            raise UserError(f"plug-in {module!r} registers the kind {name!r}, which is there; rename it")
        found[name] = module
    return found


def names() -> list[str]:
    """Every kind."""
    return sorted(_modules())


@functools.cache
def kind(name: str) -> Kind:
    """A kind by name.

    Raises:
        UserError: unknown; names the nearest.
    """
    name = OLD_NAMES.get(name, name)
    if name not in (known := _modules()):
        raise UserError(f"unknown kind of task {name!r}{nearest(name, known)}; there are {', '.join(names())}")
    found: Kind = importlib.import_module(known[name]).KIND
    return found


@functools.cache
def metrics() -> Mapping[str, Metric]:
    """Every metric of every kind, by name; a name means the same wherever it stands."""
    return {name: metric for one in names() for name, metric in kind(one).metrics.items()}


def current(names: Iterable[str]) -> list[str]:
    """Names of kinds as they are called now, each once, in order.

    Raises:
        UserError: one is unknown; names the nearest.
    """
    return list(dict.fromkeys(kind(name).name for name in names))


def refusal(wanted: Collection[str] | None, name: str) -> str | None:
    """Why a method that asks for some kinds of task, or for any (None), cannot run on one kind; None if it can."""
    if wanted is None or serves(frozenset(wanted), name):
        return None
    article = "an" if name[0] in "aeiou" else "a"
    return f"it runs on {' and '.join(sorted(wanted))} tasks, this one is {article} {name} task"


def serves(wanted: frozenset[str] | None, name: str) -> bool:
    """Whether a method that asks for some kinds, or for any (None), can run on tasks of a kind."""
    own = kind(name)
    return wanted is None or bool({OLD_NAMES.get(one, one) for one in wanted} & {own.name, *own.also})
