"""Compute-matched plain (``plain@M``): plain trained for as long as method M's whole recipe takes.

steps = round(plain steps x C_recipe(M) / C_plain), with the costs of M's own cell on the same device class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.identity import sourcecode
from kdbench.index.store import Store
from kdbench.records import files as records
from kdbench.records.counted import as_stated
from kdbench.records.files import Record
from kdbench.results.costs import totals
from kdbench.specs import registry
from kdbench.specs.config import Match
from kdbench.specs.registry import MethodRef
from kdbench.specs.tuned import AS_PUBLISHED


def match_of(ref: MethodRef, task: str, version: int, device_class: str, sources: Sequence[Path]) -> Match | None:
    """The match of a compute-matched variant, None for any other method.

    Args:
        sources: folders of records to look for M's cell in.

    Raises:
        UserError: M's cell is not there yet, or was not measured.
    """
    if ref.match is None:
        return None
    with recorded(sources) as store:
        return match_in(store, ref, task, version, device_class)


def recorded(sources: Sequence[Path]) -> Store:
    """An index of the folders that are there, in memory."""
    return Store.memory(*[folder for folder in sources if folder.is_dir()])


def match_in(store: Store, ref: MethodRef, task: str, version: int, device_class: str) -> Match:
    """The match of a compute-matched variant, by the records of an index.

    Raises:
        UserError: M's cell is not there yet, or was not measured.
    """
    assert ref.match is not None
    cells = store.cells(
        method=ref.match, task=task, task_version=version, device_class=device_class, custom=False, smoke=False,
        ruleset=AS_PUBLISHED,
    )  # fmt: skip
    current = next((cell for cell in cells if cell["current"]), None)
    changed = ""
    for cell in sorted(cells, key=lambda cell: cell["current"], reverse=True):
        if current is None or cell["spec_hash"] != current["spec_hash"] or cell["overhead_run_id"] is None:
            continue
        raw = store.record(cell["overhead_run_id"])
        record = records.parse(raw) if raw else None
        # by the record's own figures, so that what was matched to them stays the match
        if record is None or (ratio := totals(as_stated(record)).ratio("recipe")) is None:
            continue
        if _is_of_this_code(record):
            return Match(ref.match, ratio, cell["spec_hash"])
        changed = "; its code has changed since it was measured"
    raise UserError(
        f"{ref.name} needs the measured cost of {ref.match} on {task} and {device_class}{changed}; "
        f"run `kdbench evaluate --method {ref.match} --task {task}` first"
    )


def _is_of_this_code(record: Record) -> bool:
    """Whether a record's method, and the one inside it, is the code that is here now."""
    own = record.identity.code if record.identity is not None else {record.method.name: record.method.adapter_version}
    was = sourcecode.settled(own)
    here = registry.method_packages()
    return all(name in here and sourcecode.of_card(registry.card(name))[name] == code for name, code in was.items())
