"""Weights that rise over the first epochs of a stage."""

from __future__ import annotations

import math
from typing import Literal

STEEPNESS = 5.0
"""Of the rule ``gaussian``: its first value is exp(-STEEPNESS (1 - 1/epochs)^2)."""
Rule = Literal["linear", "from_zero", "gaussian"]


def ramp(rule: Rule, done: int, epochs: int) -> float:
    """Weight in the epoch after ``done`` ones, with d = done and E = epochs; 1 once a ramp is over, and for no epochs.

    Args:
        rule: ``linear`` (d + 1) / E, which is never 0 (DKD); ``from_zero`` d / E, which is 0 in the first epoch
            (ReviewKD); ``gaussian`` exp(-5 (1 - (d + 1) / E)^2) (Laine & Aila, ICLR 2017; FFSD).
        done: epochs of the stage already done; see ``At.by_epoch``.
        epochs: length of the ramp.

    Raises:
        ValueError: no such rule.
    """
    if rule not in ("linear", "from_zero", "gaussian"):
        raise ValueError(f"no ramp is called {rule!r}; there are linear, from_zero and gaussian")
    share = (done if rule == "from_zero" else done + 1) / epochs if epochs else 1.0
    if share >= 1.0:
        return 1.0
    return math.exp(-STEEPNESS * (1 - share) ** 2) if rule == "gaussian" else share
