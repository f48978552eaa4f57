"""The adapter contract, of each method and variant: what ``kdbench check NAME`` runs, on tiny tasks by ``tinies``."""

from __future__ import annotations

import pytest
from tinies import METHODS, own_scenes, variants_slow
from waiting import LOOKS

from kdbench import kinds
from kdbench.checks import CheckResult, check_method
from kdbench.checks.tiny import declared
from kdbench.specs import registry


def not_ok(name: str, results: list[CheckResult]) -> list[CheckResult]:
    """What stands against a method."""

    def may_skip(result: CheckResult) -> bool:
        kind = kinds.kind(result.task) if result.task in kinds.names() else None
        eager = kind is not None and any(kind.trained(made.loss or {}).eager is not None for made in kind.tinies)
        excused = {"replay": eager or name in LOOKS, "task loss": kind is not None and not kind.one_way}
        return result.outcome == "skipped" and excused.get(result.rule, False)

    return [r for r in results if r.outcome != "ok" and not may_skip(r)]


def keeps_the_contract(name: str, tasks: list[str]) -> None:
    results = check_method(name, tasks=tasks)
    problems = [f"{r.rule} ({r.task or 'card'}): {r.outcome}: {r.message}" for r in not_ok(name, results)]
    assert not problems, f"{name}:\n" + "\n".join(problems)
    assert {r.task for r in results} - {""} == set(tasks)


@pytest.mark.parametrize("name", variants_slow(registry.methods()))
def test_method_keeps_the_contract(name):
    keeps_the_contract(name, [own_scenes(name)[0]])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if own_scenes(name)[1]])
def test_method_keeps_the_contract_on_every_other_task(name):
    keeps_the_contract(name, own_scenes(name)[1])


def test_methods_take_turns_at_every_tiny_task():
    every = {scene for name in METHODS for scene, _ in declared(registry.method(name))}
    assert {own_scenes(name)[0] for name in METHODS} == every
