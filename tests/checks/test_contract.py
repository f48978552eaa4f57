"""The adapter contract, of each method and variant: what ``kdbench check NAME`` runs; one tiny task in the fast set."""

from __future__ import annotations

import pytest

from kdbench import kinds
from kdbench.checks import CheckResult, check_method
from kdbench.checks.tiny import declared
from kdbench.specs import registry

LOOKS = ("ccl", "energykd-heda")
"""A step of theirs looks at a result, as ``tests/engine/test_host_sync.py`` excuses: no graph can hold it."""


def not_ok(name: str, results: list[CheckResult]) -> list[CheckResult]:
    """What stands against a method."""

    def may_skip(result: CheckResult) -> bool:
        eager = result.task in kinds.names() and kinds.kind(result.task).eager is not None
        return result.outcome == "skipped" and result.rule == "replay" and (eager or name in LOOKS)

    return [r for r in results if r.outcome != "ok" and not may_skip(r)]


NAMES = list(registry.methods())


def own_scenes(name: str) -> tuple[str, list[str]]:
    """The tiny task on which a name is checked in the fast set, and the others; names take turns at the scenes."""
    own = [scene for scene, _ in declared(registry.method(name))]
    first = own[NAMES.index(name) % len(own)]
    return first, [scene for scene in own if scene != first]


def keeps_the_contract(name: str, tasks: list[str]) -> None:
    results = check_method(name, tasks=tasks)
    problems = [f"{r.rule} ({r.task or 'card'}): {r.outcome}: {r.message}" for r in not_ok(name, results)]
    assert not problems, f"{name}:\n" + "\n".join(problems)
    assert {r.task for r in results} - {""} == set(tasks)


EVERY = [
    pytest.param(name, marks=[] if ref.variant is None else pytest.mark.slow)
    for name, ref in registry.methods().items()
]
"""Methods; variants of the same code are left to the slow set."""


@pytest.mark.parametrize("name", EVERY)
def test_method_keeps_the_contract(name):
    keeps_the_contract(name, [own_scenes(name)[0]])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_method_keeps_the_contract_on_every_other_task(name):
    if others := own_scenes(name)[1]:
        keeps_the_contract(name, others)
