"""kdbench: a benchmark and leaderboard harness across knowledge-distillation methods.

What is offered to scripts and notebooks is named here and loaded when it is first asked for: ``import kdbench`` imports
neither torch nor the command line.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

ENGINE_VERSION = 1
"""Bumped whenever the same configuration would give other results; records of different values never meet."""

if TYPE_CHECKING:
    from kdbench import losses as losses
    from kdbench.api.distiller import Distiller as Distiller
    from kdbench.api.names import methods as methods
    from kdbench.api.names import tasks as tasks
    from kdbench.api.results import results as results
    from kdbench.api.runs import distill as distill
    from kdbench.api.runs import evaluate as evaluate
    from kdbench.api.runs import sweep as sweep
    from kdbench.api.runs import task as task
    from kdbench.api.runs import tune as tune
    from kdbench.api.taps import tap as tap
    from kdbench.base.errors import UserError as UserError
    from kdbench.contract import Method as Method
    from kdbench.deploy.load import load_student as load_student
    from kdbench.deploy.load import load_teacher as load_teacher
    from kdbench.specs.nets import net as net

_OFFERED = {
    "Distiller": "kdbench.api.distiller",
    "Method": "kdbench.contract",
    "UserError": "kdbench.base.errors",
    "load_student": "kdbench.deploy.load",
    "load_teacher": "kdbench.deploy.load",
    "evaluate": "kdbench.api.runs",
    "tap": "kdbench.api.taps",
    "task": "kdbench.api.runs",
    "net": "kdbench.specs.nets",
}
"""Name to the module that has it. Names that are packages too are called by them, see :mod:`kdbench.base.verbs`."""
_MODULES = ("distill", "losses", "methods", "results", "sweep", "tasks", "tune")


def __getattr__(name: str) -> Any:
    if name in _OFFERED:
        return getattr(import_module(_OFFERED[name]), name)
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_OFFERED, *_MODULES])
