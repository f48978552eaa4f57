"""Compute-matched plain (``plain@M``): plain trained for as long as method M's whole recipe takes.

steps = round(plain steps x C_recipe(M) / C_plain), with the costs of M's own cell on the same device class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.index.store import Store
from kdbench.records import files as records
from kdbench.results.costs import totals
from kdbench.specs.config import Match
from kdbench.specs.registry import MethodRef


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
        method=ref.match, task=task, task_version=version, device_class=device_class, custom=False, smoke=False
    )
    current = next((cell for cell in cells if cell["current"]), None)
    raw = store.record(current["overhead_run_id"]) if current and current["overhead_run_id"] else None
    ratio = totals(records.parse(raw)).ratio("recipe") if raw else None
    if current is None or ratio is None:
        raise UserError(
            f"{ref.name} needs the measured cost of {ref.match} on {task} and {device_class}; "
            f"run `kdbench evaluate --method {ref.match} --task {task}` first"
        )
    return Match(ref.match, ratio, current["spec_hash"])
