"""The adapter contract as checks anyone can run on a method: built in, plugged in, or being written.

Every rule of :data:`kdbench.checks.rules.RULES` runs on a tiny task of each kind that the method declares, and on one
whose teachers read another input than the student.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from kdbench import kinds
from kdbench.base.errors import UserError, nearest
from kdbench.checks import golden, rules
from kdbench.checks.nets import check_net
from kdbench.checks.result import CheckResult, Skipped, Verdict
from kdbench.checks.tasks import check_task
from kdbench.checks.tiny import TWO_INPUTS, declared, method_config, tiny
from kdbench.contract import NotApplicable
from kdbench.engine.assemble import needs_of
from kdbench.specs import registry
from kdbench.specs.registry import MethodRef

__all__ = ["CheckResult", "check_method", "check_net", "check_task"]


def check_method(name: str, *, tasks: Collection[str] | None = None) -> list[CheckResult]:
    """Runs every rule on a method or variant.

    Args:
        name: as registered.
        tasks: tiny tasks to run on, of those the method declares: a kind's name, or ``two inputs``; None for all.

    Raises:
        UserError: unknown method or task.
    """
    ref = registry.method(name)
    known = [*kinds.names(), TWO_INPUTS]
    for scene in tasks or ():
        if scene not in known:
            raise UserError(f"no tiny task is called {scene!r}{nearest(scene, known)}; there are {', '.join(known)}")
    return list(_check(ref, tasks))


def _check(ref: MethodRef, tasks: Collection[str] | None) -> Iterator[CheckResult]:
    yield _result("unknown hyper-parameter", "", rules.unknown_hyper_parameter(ref))
    try:
        config = method_config(ref)
        needs = needs_of(config)
    except UserError as error:  # says which of its lines
        yield CheckResult("kinds", "", "failed", str(error))
        return
    except Exception as error:
        yield CheckResult("kinds", "", "failed", rules.crash("loading it", error))
        return
    yield _result("kinds", "", rules.kinds(ref, needs))
    yield _result("needs", "", rules.needs_said(ref))
    if golden.own_place(ref):
        yield _result("golden vectors", "", rules.golden_vectors(ref))
    for scene, chosen in declared(ref):
        if tasks is None or scene in tasks:
            try:
                task = tiny(ref, chosen, needs_of(chosen), scene)
            except NotApplicable as reason:
                message = f"it declares {scene} tasks but refuses every tiny one: {reason}"
                yield CheckResult("runs", scene, "failed", message)
                continue
            except Exception as error:
                yield CheckResult("runs", scene, "failed", rules.crash("preparing it", error))
                continue
            with tempfile.TemporaryDirectory() as folder:
                for rule, verdict in rules.on_task(task, Path(folder)):
                    yield _result(rule, scene, verdict)


def _result(rule: str, task: str, verdict: Verdict) -> CheckResult:
    if isinstance(verdict, Skipped):
        return CheckResult(rule, task, "skipped", verdict.reason)
    return CheckResult(rule, task, "failed" if verdict else "ok", verdict or "")
