"""What earlier runs left: a record that answers for a run, or checkpoints it can go on from.

Either counts only where nothing that decides the result has changed since (:mod:`kdbench.identity`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from kdbench import identity
from kdbench.base.files import read_facts, write_atomic
from kdbench.base.leftovers import FACTS, clear_run
from kdbench.data.feed.dataset import Dataset
from kdbench.devices.machine import environment
from kdbench.engine.assemble import rows_read
from kdbench.records import files as records
from kdbench.records import recorded
from kdbench.records.files import Record
from kdbench.records.schema import Identity
from kdbench.runs.request import Request

ENDED = ("ok", "not_applicable")
SHOWN = 3
"""Differences between two machines named in a line."""


def finished(request: Request) -> Record | None:
    """The record of this run, if it is there and still answers for it.

    That of a failed run counts unless it is to be tried again; of several the first, for a repeat replaces none.

    Raises:
        UserError: the data cannot be had, so that nobody can tell.
    """
    found = [r for r in _of_cell(request) if r.seed == request.seed and (r.status in ENDED or not request.retry)]
    return min(_unchanged(request, found), key=lambda record: record.status not in ENDED, default=None)


def not_applicable(request: Request) -> Record | None:
    """The record which says that the method does not apply to the task, of whatever seed."""
    found = [record for record in _of_cell(request) if record.status == "not_applicable"]
    return next(iter(_unchanged(request, found)), None)


def measured(request: Request, modes: Collection[str]) -> Record | None:
    """The record of a run of the cell, or of one of the same steps, that measured its overhead in one of the modes."""
    for spec_hash in dict.fromkeys((request.config.step_hash, request.config.spec_hash)):
        for record in _of_cell(request, spec_hash):
            block = record.measured
            own = block is not None and block.measured_by == record.run_id and block.mode in modes
            if own and not _changes(request, record):
                return record
    return None


def answer(request: Request, record: Record) -> str:
    """A line which says that an answer is a record's, and what of its machine is otherwise now."""
    since = list(identity.differences(record, environment(request.device, request.ranks.size)))
    other = f"; since then {'; '.join(since[:SHOWN])}{' ...' if len(since) > SHOWN else ''}" if since else ""
    return (
        f"{request.name}: from a record of {time(record)} ({record.run_id[:8]}), nothing that decides it has "
        f"changed{other}; --force runs it again"
    )


def overtaken(request: Request) -> str | None:
    """A line where the run is recorded, but something that decides its result has changed since."""
    old = [record for record in _of_cell(request) if record.seed == request.seed and record.status in ENDED]
    if not old:
        return None
    changed = _changes(request, old[-1], _rows_read(request))
    return (
        f"{request.name}: recorded on {time(old[-1])} ({old[-1].run_id[:8]}), but since then {' and '.join(changed)} "
        "changed; running it again"
    )


def time(record: Record) -> str:
    """When a run began, for people."""
    return f"{record.created_at[:10]} {record.created_at[11:16]} UTC"


def _of_cell(request: Request, spec_hash: str | None = None) -> list[Record]:
    """The home's records of a specification on the request's device class, oldest first."""
    found = recorded.of(request.home.records, spec_hash or request.config.spec_hash)
    return [record for record in found if record.device_class == request.device_class]


def _unchanged(request: Request, found: list[Record]) -> Iterator[Record]:
    """Those of some records that still answer; rows are read only where there is a record to hold them against."""
    if found:
        rows = _rows_read(request)
        yield from (record for record in found if not _changes(request, record, rows))


def _rows_read(request: Request) -> identity.RowsRead:
    return rows_read(request.config, request.seed, request.load())


def _changes(request: Request, record: Record, rows: identity.RowsRead | None = None) -> list[str]:
    return identity.changes(record, identity.of(request.config), request.config.method.ref.card.version, rows)


@dataclass(frozen=True)
class Begun:
    """A run under way, as its folder knows it: the first process that worked on it named and dated it.

    Attributes:
        identity: what its checkpoints are of; None before the data were read.
    """

    run_id: str
    created_at: str
    identity: Identity | None = None

    @classmethod
    def of(cls, request: Request) -> Begun:
        """The one in the request's folder, or a new one instead of what is over or has no facts."""
        found = cls._read(request.folder)
        if found is not None and not (request.home.records / f"{found.run_id}.json").is_file():
            return found
        clear_run(request.folder)
        return cls(records.new_run_id(), records.now())._write(request.folder)

    def on(self, request: Request, everything: Dataset) -> Begun:
        """This run if its checkpoints are of the code, the weights and the rows that are here now; else a new one."""
        own = identity.of(request.config, everything.identity())
        if self.identity in (None, own):
            return dataclasses.replace(self, identity=own)._write(request.folder)
        clear_run(request.folder)
        request.progress.say(
            f"{request.name}: it was begun with other code, weights or data than are here now; starting it anew"
        )
        return Begun(records.new_run_id(), records.now(), own)._write(request.folder)

    @classmethod
    def _read(cls, folder: Path) -> Begun | None:
        try:
            raw = read_facts(folder / FACTS, "run_id", "created_at")
            own = Identity.model_validate_json(json.dumps(raw["identity"])) if raw.get("identity") else None
            return cls(raw["run_id"], raw["created_at"], own)
        except (OSError, ValueError):
            return None

    def _write(self, folder: Path) -> Begun:
        own = self.identity.model_dump(mode="json") if self.identity is not None else None
        facts = {"run_id": self.run_id, "created_at": self.created_at, "identity": own}
        write_atomic(folder / FACTS, json.dumps(facts))
        return self
