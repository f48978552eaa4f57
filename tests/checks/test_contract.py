"""The adapter contract, for every registered method and variant: what ``kdbench check NAME`` runs."""

from __future__ import annotations

import pytest

from kdbench.checks import CheckResult, check_method
from kdbench.checks.tiny import method_config, scenes
from kdbench.engine.assemble import needs_of
from kdbench.specs import registry

LOOKS = ("ccl", "energykd-heda")
"""A step of theirs looks at a result, as ``tests/engine/test_host_sync.py`` excuses: no graph can hold it."""


def not_ok(name: str, results: list[CheckResult]) -> list[CheckResult]:
    """What stands against a method."""
    may_skip = {"replay"} if name in LOOKS else set()
    return [r for r in results if r.outcome != "ok" and not (r.outcome == "skipped" and r.rule in may_skip)]


@pytest.mark.parametrize("name", registry.methods())
def test_method_keeps_the_contract(name):
    results = check_method(name)
    problems = [f"{r.rule} ({r.task or 'card'}): {r.outcome}: {r.message}" for r in not_ok(name, results)]
    assert not problems, f"{name}:\n" + "\n".join(problems)
    assert {r.task for r in results} - {""} == set(scenes(needs_of(method_config(registry.method(name)))))
