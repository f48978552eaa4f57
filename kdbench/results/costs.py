"""What a method costs whole: the stage ledger of a record as three totals, beside plain's.

student: stages that every student pays, once the method's artefacts exist.
recipe: student, and what the method itself must make first (a GAN, generated samples ...), reusable or not.
full: recipe, and the training of the teachers.

Training that only measures what was learnt, such as fine-tuning, is a line of the ledger and in no total; so is the
search of hyper-parameters, which serves all seeds, and what ``engine.teacher_store`` kept where the steps were timed
without it, for the teacher's work is in these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kdbench.base.fields import EVALUATION, SEARCH
from kdbench.records import counted
from kdbench.records.files import Record
from kdbench.records.schema.overhead import Measured
from kdbench.specs.options import STORE
from kdbench.specs.registry import PLAIN

HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Totals:
    """Device-hours of one run.

    Attributes:
        student_h, recipe_h: as the module says.
        full_h: None when a teacher's training cost is unknown.
        plain_h: plain training of the same task, of plain itself its own; None without a measured overhead.
        clock_h: what of the recipe goes by the clock on the wall, a stage whose steps nobody timed or an artefact.
        search_h: of the search of its hyper-parameters, None of published ones; in no other total.
        basis: ``projected`` when hours are steps times the step time of the paired measurement, which a busy machine
            cannot distort as it does the clock on the wall; ``measured`` when they are that clock's; ``cited`` when a
            part was measured by another run.
    """

    student_h: float
    recipe_h: float
    full_h: float | None
    plain_h: float | None
    basis: str
    search_h: float | None = None
    clock_h: float = 0.0

    def ratio(self, which: str) -> float | None:
        """``student``, ``recipe`` or ``full`` over plain; None where either is unknown."""
        hours = getattr(self, f"{which}_h")
        return None if hours is None or not self.plain_h else hours / self.plain_h


@dataclass(frozen=True)
class Line:
    """A stage of a record, priced: ``basis`` as in :class:`Totals`."""

    name: str
    ledger: str
    hours: float
    steps: int
    basis: str
    reusable: bool


def lines(record: Record) -> list[Line]:
    """The stages of a record that ended well, in device-hours."""
    step_ms = _step_ms(record, record.measured)
    search = record.search
    searched = [Line("search", SEARCH, search.hours, 0, "measured", True)] if search is not None else []
    return searched + [
        Line(stage.name, stage.ledger, stage.steps * step_ms[stage.name] / HOUR_MS, stage.steps, "projected",
             stage.reusable)
        if stage.name in step_ms
        else Line(stage.name, stage.ledger, stage.device_h, stage.steps, stage.basis, stage.reusable)
        for stage in record.stages
    ]  # fmt: skip


def totals(record: Record) -> Totals:
    """The three totals of a record that ended well."""
    timed = record.measured is not None
    priced = [
        line
        for line in lines(record)
        if line.ledger not in (EVALUATION, SEARCH)
        and not (timed and record.protocol.teacher_store and line.name == STORE)
    ]
    recipe = sum(line.hours for line in priced)
    student = sum(line.hours for line in priced if not line.reusable)
    taught = [teacher.training.device_h if teacher.training else None for teacher in record.models.teachers]
    full = None if None in taught else recipe + sum(h for h in taught if h is not None)
    bases = {line.basis for line in priced}
    basis = next((word for word in ("cited", "projected") if word in bases), "measured")
    plain = _plain_h(record, record.measured)
    if plain is not None and record.method_name == PLAIN:
        plain = recipe  # plain measured against plain differs from 1 by noise alone
    clock = sum(line.hours for line in priced if line.basis != "projected")
    search = record.search.hours if record.search is not None else None
    return Totals(student, recipe, full, plain, basis, search, clock)


def _step_ms(record: Record, block: Measured | None) -> dict[str, float]:
    """Stage name to step time, of the stages that train."""
    if block is None:
        return {}
    if block.phases:
        return counted.step_ms(block)
    own = counted.estimate(block).method_ms
    return {stage.name: own for stage in record.stages if stage.steps and stage.ledger != EVALUATION}


def _plain_h(record: Record, block: Measured | None) -> float | None:
    if block is None:
        return None
    rows = next((part.n for part in record.task.data if part.split == "train"), None)
    if rows is None:
        return None
    steps = record.protocol.epochs * math.ceil(rows / min(record.protocol.batch, rows))
    return steps * counted.estimate(block).plain_ms / HOUR_MS
