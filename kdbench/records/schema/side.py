"""What is learnt of a record after it was written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kdbench.base.fields import Part, RunId, Text, Time, Word
from kdbench.records.schema.version import SCHEMA_VERSION


class Verification(Part):
    """A check by the maintainers. Level 1 validated, 2 checkpoint re-evaluated, 3 re-run, 4 on another device class."""

    level: Annotated[int, Field(ge=1, le=4)]
    by: Word
    date: Time
    run_id_ref: RunId | None = None
    delta: float | None = None
    verdict: Literal["passed", "failed"]
    note: Text | None = None


class Withdrawn(Part):
    """A record taken back; it stays where it is and is shown as withdrawn."""

    date: Time
    reason: Text


class SideFile(Part):
    """``verifications/<run_id>.json``: what is learnt of a record after it was written. Records never change."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: RunId
    verifications: tuple[Verification, ...] = ()
    withdrawn: Withdrawn | None = None
