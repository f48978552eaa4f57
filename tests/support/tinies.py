"""Tiny tasks for methods under engine options."""

from __future__ import annotations

from dataclasses import replace

from kdbench import kinds
from kdbench.checks.tiny import Tiny, method_config, scenes, tiny
from kdbench.engine.assemble import hyper_parameters
from kdbench.specs import registry
from kdbench.specs.options import EAGER, EngineOptions


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
