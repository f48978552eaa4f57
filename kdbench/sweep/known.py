"""What the index tells a sweep: which runs are recorded, which cells are measured, how long runs take."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Self

from kdbench.base.home import Home
from kdbench.index import home as index
from kdbench.index.store import Store
from kdbench.specs.registry import PLAIN

_RUNS = (
    "SELECT method, task, spec_hash, seed, device_class, status, error, run_id FROM v_runs WHERE NOT is_withdrawn"
    " ORDER BY created_at, run_id"
)
_MEASURED = "SELECT spec_hash, device_class, mode, run_id FROM runs JOIN overhead USING (run_id) WHERE status = 'ok'"
_HOURS = """
SELECT method, task, device_class, median(hours) AS hours
FROM (SELECT r.method, r.task, r.device_class, r.run_id,
             sum(CASE WHEN s.steps > 0 AND o.step_ms IS NOT NULL THEN s.steps * o.step_ms / 3600000
                      ELSE s.device_h END) AS hours
      FROM runs r JOIN stages s USING (run_id) LEFT JOIN overhead o USING (run_id)
      WHERE r.status = 'ok' AND r.smoke = ? AND NOT r.custom GROUP BY ALL)
GROUP BY ALL
"""
_RATIOS = """
SELECT method, device_class, median(step_ratio) AS ratio FROM runs JOIN overhead USING (run_id)
WHERE status = 'ok' AND NOT custom GROUP BY ALL
"""


@dataclass(frozen=True)
class Recorded:
    """A run the index has."""

    method: str
    task: str
    device_class: str
    status: str
    error: str | None
    run_id: str


@dataclass(frozen=True)
class Known:
    """What the index tells, of the device classes of a sweep alone.

    Attributes:
        runs: records by specification and seed, oldest first.
        inapplicable: specification to the records which say that its method does not apply.
        measured: specification to the modes its overhead was measured in, each with the run that has it.
        hours: training of one run, by method and task: steps times their measured time, or the clock's.
        ratios: method to the median of its step time over plain's.
    """

    runs: dict[tuple[str, int], list[Recorded]] = field(default_factory=dict)
    inapplicable: dict[str, list[Recorded]] = field(default_factory=dict)
    measured: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    hours: dict[tuple[str, str], float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, home: Home, smoke: bool, belongs: Callable[[str], bool]) -> Self:
        """Brings the index up to date, and reads it; from the records themselves where the index stays locked.

        Args:
            smoke: hours of cut-down runs or of whole ones.
            belongs: whether a device class is one of the sweep's.

        Raises:
            UserError: the index cannot be used.
        """
        if not home.records.is_dir():
            return cls()
        return index.use(home, lambda store: cls._of(store, smoke, belongs))

    @classmethod
    def _of(cls, store: Store, smoke: bool, belongs: Callable[[str], bool]) -> Self:
        def rows(sql: str, *parameters: Any) -> list[dict[str, Any]]:
            return [row for row in store.query(sql, parameters) if belongs(row["device_class"])]

        found = cls()
        for row in rows(_RUNS):
            key = (row.pop("spec_hash"), row.pop("seed"))
            found.runs.setdefault(key, []).append(Recorded(**row))
            if row["status"] == "not_applicable":
                found.inapplicable.setdefault(key[0], []).append(found.runs[key][-1])
        for row in rows(_MEASURED):
            found.measured.setdefault(row["spec_hash"], set()).add((row["mode"], row["run_id"]))
        found.hours.update({(row["method"], row["task"]): row["hours"] for row in rows(_HOURS, smoke)})
        found.ratios.update({row["method"]: row["ratio"] for row in rows(_RATIOS)})
        return found

    def is_measured(self, spec_hash: str, mode: str, stale: Collection[str] = ()) -> bool:
        """Whether the cell's overhead was measured in this mode or a better one.

        Args:
            stale: run ids that do not count.
        """
        modes = {found for found, run_id in self.measured.get(spec_hash, set()) if run_id not in stale}
        return bool(modes & ({"full"} if mode == "full" else {"full", "quick"}))

    def hours_of(self, method: str, task: str) -> float | None:
        """Hours of one run: those of the cell, or plain's on the task times the method's ratio elsewhere."""
        if (method, task) in self.hours:
            return self.hours[method, task]
        plain, ratio = self.hours.get((PLAIN, task)), self._ratio(method)
        return None if plain is None or ratio is None else plain * ratio

    def guessed(self, method: str, task: str) -> bool:
        """Whether :meth:`hours_of` goes by other tasks, as the method has not run on this one."""
        return (method, task) not in self.hours

    def _ratio(self, method: str) -> float | None:
        """A whole run over plain's, all stages, where a task has both; else the step over plain's step."""
        pairs = ((h, self.hours.get((PLAIN, on))) for (name, on), h in self.hours.items() if name == method)
        found = [own / plain for own, plain in pairs if plain]
        return median(found) if found else self.ratios.get(method)
