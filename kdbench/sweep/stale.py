"""Which records of a sweep's home no longer answer for its runs: their code, weights or data have changed since."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdbench import identity
from kdbench.base.errors import UserError
from kdbench.base.files import canonical_json
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.records import recorded
from kdbench.specs.config import RunConfig

if TYPE_CHECKING:
    from kdbench.data.feed.dataset import Dataset


class Stale:
    """Asked cell by cell; rows are read once a task, and only where there are records to hold against them.

    Args:
        home: whose records are looked at.
        data: the user's data folder, None for the hub.
    """

    def __init__(self, home: Home, data: Path | None) -> None:
        self._home, self._data = home, data
        self._rows: dict[str, Dataset | None] = {}

    def of(self, config: RunConfig) -> frozenset[str]:
        """Run ids of the records of a configuration that are of another identity than its runs would be now."""
        specs = dict.fromkeys((config.spec_hash, config.step_hash))
        found = recorded.of(self._home.records, *specs)
        if not found:
            return frozenset()
        now, version = identity.of(config), config.method.ref.card.version
        everything = self._load(config)
        changed = set()
        for record in found:
            rows = self._read(config, record.seed, everything) if record.spec_hash == config.spec_hash else None
            if identity.changes(record, now, version, rows):
                changed.add(record.run_id)
        return frozenset(changed)

    def _load(self, config: RunConfig) -> Dataset | None:
        """All rows; None where they cannot be had, which the run itself will say."""
        from kdbench.engine.assemble import load_data

        key = canonical_json([config.task.data.model_dump(mode="json"), config.smoke_budget()])
        if key not in self._rows:
            try:
                self._rows[key] = load_data(config, self._data, self._home, Progress.silent())
            except UserError:
                self._rows[key] = None
        return self._rows[key]

    def _read(self, config: RunConfig, seed: int, everything: Dataset | None) -> identity.RowsRead | None:
        from kdbench.engine.assemble import rows_read

        return None if everything is None else rows_read(config, seed, everything)
