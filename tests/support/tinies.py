"""Which methods are tried on which tiny tasks by tests over the registry, and under which engine options.

A method is its code, its variants are other hyper-parameters of that code. The fast set tries every method on one tiny
task, at which methods take turns; the slow set its variants on theirs and, where kinds matter, the method on
all others. Variants are tried on no others: what differs there is a number of code that was tried.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import pytest

from kdbench import kinds
from kdbench.checks.tiny import Tiny, declared, tiny
from kdbench.engine.assemble import needs_of
from kdbench.specs import registry
from kdbench.specs.config import MethodConfig
from kdbench.specs.options import EAGER, EngineOptions
from kdbench.specs.registry import MethodRef

METHODS = [name for name, ref in registry.methods().items() if ref.variant is None]


def variants_slow(names: Iterable[str], fast: Collection[str] = ()) -> list[Any]:
    """Names as parameters of a test: variants are left to the slow set, but for those named in ``fast``."""
    return [n if n in METHODS or n in fast else pytest.param(n, marks=pytest.mark.slow) for n in names]


def own_scenes(name: str) -> tuple[str, list[str]]:
    """The tiny task whose turn it is for a method or variant, and the others that it says it can run on."""
    first, own = _turns()[name]
    return first, [scene for scene in own if scene != first]


@functools.cache
def _turns() -> dict[str, tuple[str, list[str]]]:
    """By method the tiny task whose turn it is and all it says it can run on; seldom asked and rare ones come first."""
    own = {name: [scene for scene, _ in declared(ref)] for name, ref in registry.methods().items()}
    able, asked = Counter(scene for name in METHODS for scene in own[name]), Counter[str]()
    found = {}
    for name in [*METHODS, *(name for name in own if name not in METHODS)]:
        found[name] = (min(own[name], key=lambda scene: (asked[scene], able[scene])), own[name])
        asked[found[name][0]] += 1
    return found


def _first(ref: MethodRef) -> tuple[str, MethodConfig]:
    """The tiny task on which a method is tried where steps matter: the first of a kind that captures, if there is one.

    Steps of an eager kind wait by nature, whatever the method.
    """
    own = declared(ref)
    return next((one for one in own if not _eager(one[0])), own[0])


def _eager(scene: str) -> bool:
    return scene in kinds.names() and kinds.kind(scene).eager is not None


def captured() -> list[str]:
    """Methods and variants whose steps can be captured on a kind of task that they run on."""
    return [name for name, ref in registry.methods().items() if not _eager(_first(ref)[0])]


def tiny_of(method: str, options: EngineOptions = EAGER) -> Tiny:
    """A tiny task that a method runs on, with the hyper-parameters that it has there."""
    ref = registry.method(method)
    scene, config = _first(ref)
    found = tiny(ref, config, needs_of(config), scene)
    return replace(found, config=replace(found.config, engine=options))
