"""The adapter contract, for every registered method and variant: what ``kdbench check NAME`` runs."""

from __future__ import annotations

import pytest

from kdbench import registry
from kdbench.checks import check_method


@pytest.mark.parametrize("name", registry.methods())
def test_method_keeps_the_contract(name):
    results = check_method(name)
    problems = [f"{r.rule} ({r.task or 'card'}): {r.outcome}: {r.message}" for r in results if r.outcome != "ok"]
    assert not problems, f"{name}:\n" + "\n".join(problems)
    assert {r.task for r in results} - {""} == set(registry.method(name).kinds)
