"""What lies beside a record in folders of its own and goes where the record goes: examples, values of test rows."""

from __future__ import annotations

from pathlib import Path

from kdbench.records import examples, items
from kdbench.records.files import RecordError, load
from kdbench.records.folder import records_of

FOLDERS = (examples.FOLDER, items.FOLDER)


def carry(record: Path, to: Path) -> None:
    """Copies what is sound beside a record's file to the same places beside another."""
    if (shown := examples.load(examples.path_of(record))) is not None:
        examples.dump(shown, examples.path_of(to))
    if (each := items.of(record, load(record))) is not None:
        items.dump(each, items.path_of(to))


def fault(path: Path) -> str | None:
    """What is wrong with a file in one of :data:`FOLDERS`, None where nothing is."""
    if path.parent.name == examples.FOLDER:
        return None if examples.load(path) is not None else "is no zip of examples as runs write them; leave it out"
    each = items.load(path)
    if each is None:
        return "is no Parquet file of test rows as runs write them; leave it out"
    try:
        return items.wrong(each, load(path.parents[1] / f"{path.stem}.json"))
    except RecordError:
        return None  # of the record itself


class Items:
    """What records of a folder kept of each test row.

    Args:
        folder: records of either form, looked through to the bottom; one that is not there holds none.
    """

    def __init__(self, folder: Path) -> None:
        self.files = {path.stem: path for path in sorted(folder.rglob(f"{items.FOLDER}/*.parquet"))}
        self._records = {path.stem: path for path in records_of(folder)} if self.files else {}

    def of(self, run: str) -> items.Each | None:
        """Those of a run; None where it kept none, or they are not its own."""
        record = self._records.get(run) if run in self.files else None
        return None if record is None else items.of(record, load(record))
