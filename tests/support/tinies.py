"""Which methods are tried on which tiny tasks by tests over the registry, and under which engine options.

A method is its code, its variants are other hyper-parameters of that code. The fast set tries every method on one tiny
task, at which methods take turns; the slow set its variants on theirs and, where kinds matter, the method on
all others. Variants are tried on no others: what differs there is a number of code that was tried.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import pytest

from kdbench import kinds
from kdbench.checks.tiny import Tiny, declared, method_config, scenes, tiny
from kdbench.engine.assemble import hyper_parameters
from kdbench.specs import registry
from kdbench.specs.options import EAGER, EngineOptions

METHODS = [name for name, ref in registry.methods().items() if ref.variant is None]


def variants_slow(names: Iterable[str], fast: Collection[str] = ()) -> list[Any]:
    """Names as parameters of a test: variants are left to the slow set, but for those named in ``fast``."""
    return [n if n in METHODS or n in fast else pytest.param(n, marks=pytest.mark.slow) for n in names]


def own_scenes(name: str) -> tuple[str, list[str]]:
    """The tiny task whose turn it is for a method or variant, and the others that it says it can run on."""
    own = [scene for scene, _ in declared(registry.method(name))]
    first = own[list(registry.methods()).index(name) % len(own)]
    return first, [scene for scene in own if scene != first]


def captured() -> list[str]:
    """Methods and variants whose steps can be captured on a kind of task that they run on."""
    return [
        name
        for name, ref in registry.methods().items()
        if ref.kinds is None or any(kinds.kind(kind).eager is None for kind in ref.kinds)
    ]


def tiny_of(method: str, options: EngineOptions = EAGER) -> Tiny:
    """A tiny task of the first kind that a method runs on."""
    ref = registry.method(method)
    config = method_config(ref)
    needs = ref.adapter().needs(hyper_parameters(config))
    found = tiny(ref, config, needs, scenes(needs)[0])
    return replace(found, config=replace(found.config, engine=options))
