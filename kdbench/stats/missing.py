"""Why a cell holds no score. Never one blank, never imputed."""

from __future__ import annotations

from enum import StrEnum


class Missing(StrEnum):
    """The four kinds of missing cell, in the order in which they speak for a cell whose seeds differ."""

    FAILED = "failed"
    WITHDRAWN = "withdrawn"
    NOT_APPLICABLE = "not_applicable"
    NOT_RUN = "not_run"

    @property
    def label(self) -> str:
        """What a table prints in the cell."""
        return _LABELS[self]


_LABELS = {
    Missing.FAILED: "failed",
    Missing.WITHDRAWN: "withdrawn",
    Missing.NOT_APPLICABLE: "n/a",
    Missing.NOT_RUN: "–",
}
