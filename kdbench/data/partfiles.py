"""Which files of a data set's folder hold a part. Reads none of them; needs neither numpy nor pyarrow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.data import folders
from kdbench.data.setspec import Part, SetSpec
from kdbench.errors import UserError

_SHARD = re.compile(r"-(?P<number>\d{5})-of-(?P<count>\d{5})\.")


@dataclass(frozen=True)
class PartFiles:
    """Files of a part: tables of many rows, or a folder with a file a row.

    Attributes:
        tables: parquet or Arrow files, in order.
        folder: what holds the part's files where there are no tables.
    """

    spec: SetSpec
    tables: Sequence[Path] = ()
    folder: Path | None = None

    @property
    def files(self) -> Sequence[Path]:
        """Every file that decides the part's rows; slow for a folder of many.

        Raises:
            UserError: the folder does not hold what it should.
        """
        return self.tables if self.folder is None else folders.files(self.spec, self.folder)


def part_files(spec: SetSpec, folder: Path, part: Part) -> PartFiles:
    """The files of a part on disk.

    Raises:
        UserError: nothing there, or a shard is missing.
    """
    names = spec.parts[part]
    for name in names:
        for suffix in ("parquet", "arrow"):
            if found := _files(folder, name, suffix):
                _whole(found)
                return PartFiles(spec, found)
    for name in names:
        if (folder / name).is_dir():
            return PartFiles(spec, folder=folder / name)
    name = names[0]
    raise UserError(
        f"{folder}: no {part} part; {name}*.parquet, {name}*.arrow or a folder {name}/ of files is expected"
    )


def _files(folder: Path, name: str, suffix: str) -> list[Path]:
    form = re.compile(rf"{re.escape(name)}([-_.].*)?\.{suffix}")
    for place in (folder, folder / "data"):
        found = [path for path in place.glob(f"*.{suffix}") if form.fullmatch(path.name)]
        if found:
            return sorted(found)
    return sorted((folder / name).glob(f"*.{suffix}"))


def _whole(files: Sequence[Path]) -> None:
    """Refuses a set of shards of which one is missing."""
    shards = [match for path in files if (match := _SHARD.search(path.name))]
    if shards and len(shards) == len(files) != int(shards[0]["count"]):
        missing = sorted(set(range(int(shards[0]["count"]))) - {int(match["number"]) for match in shards})
        raise UserError(
            f"{files[0].parent}: shard {missing[0]} of {shards[0]['count']} is missing beside {files[0].name}; "
            "the download was cut off, get it again"
        )
