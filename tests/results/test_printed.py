"""What `kdbench results` prints of methods that do not apply."""

from __future__ import annotations

from typing import Any

WHY = {"type": "NotApplicable", "message": "its student offers no attention"}


def test_methods_that_do_not_apply_are_told_below_the_table_by_reason(run: Any, keep: Any) -> None:
    keep(method__name="kd")
    for name in ("askd", "ccl"):
        keep(method__name=name, status="not_applicable", error=WHY)
    code, out, _ = run("results")
    assert code == 0
    lines = out.splitlines()
    assert "not applicable: its student offers no attention (askd, ccl)" in lines
    assert [line.split()[0] for line in lines if line.split()[:1] in (["kd"], ["askd"], ["ccl"])] == ["kd"]


def test_where_none_applies_there_is_no_table(run: Any, keep: Any) -> None:
    keep(method__name="askd", status="not_applicable", error=WHY)
    code, out, _ = run("results")
    assert code == 0
    assert len(out.splitlines()) == 2
