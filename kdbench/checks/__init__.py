"""The adapter contract as checks anyone can run on a method: built in, plugged in, or being written.

Every rule runs on a tiny task of each kind the method declares; see :data:`kdbench.checks.rules.RULES`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from kdbench import registry
from kdbench.checks import golden, rules
from kdbench.checks.result import CheckResult, Skipped, Verdict
from kdbench.checks.tasks import check_task
from kdbench.checks.tiny import KINDS, method_config, tiny
from kdbench.contract import NotApplicable
from kdbench.engine.prepare import needs_of
from kdbench.errors import UserError, nearest
from kdbench.registry import MethodRef

__all__ = ["CheckResult", "check_method", "check_task"]


def check_method(name: str, *, tasks: Collection[str] | None = None) -> list[CheckResult]:
    """Runs every rule on a method or variant.

    Args:
        name: as registered.
        tasks: kinds of tiny tasks to run on, of those the method declares; None for all.

    Raises:
        UserError: unknown method or kind.
    """
    ref = registry.method(name)
    for kind in tasks or ():
        if kind not in KINDS:
            raise UserError(f"no tiny task of kind {kind!r}{nearest(kind, KINDS)}; there are {', '.join(KINDS)}")
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
    for kind in KINDS:
        if kind in needs.kinds and (tasks is None or kind in tasks):
            try:
                task = tiny(ref, config, needs, kind)
            except NotApplicable as reason:
                message = f"it declares {kind} tasks but refuses every tiny one: {reason}"
                yield CheckResult("runs", kind, "failed", message)
                continue
            except Exception as error:
                yield CheckResult("runs", kind, "failed", rules.crash("preparing it", error))
                continue
            with tempfile.TemporaryDirectory() as folder:
                for rule, verdict in rules.on_task(task, Path(folder)):
                    yield _result(rule, kind, verdict)


def _result(rule: str, task: str, verdict: Verdict) -> CheckResult:
    if isinstance(verdict, Skipped):
        return CheckResult(rule, task, "skipped", verdict.reason)
    return CheckResult(rule, task, "failed" if verdict else "ok", verdict or "")
