"""What came of one rule of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CheckResult:
    """What came of one rule.

    Attributes:
        rule: a key of :data:`kdbench.checks.rules.RULES` or :data:`kdbench.checks.tasks.RULES`.
        task: kind of the tiny task it ran on; empty for rules about a card or a task's own file.
        message: what is wrong and what to do, or why it was skipped; of a rule that is kept, what
            should be known.
    """

    rule: str
    task: str
    outcome: Literal["ok", "failed", "skipped"]
    message: str = ""


@dataclass(frozen=True)
class Skipped:
    """A rule that could not be judged, and why."""

    reason: str


Verdict = str | Skipped | None
"""What is wrong, why it was not judged, or None."""
