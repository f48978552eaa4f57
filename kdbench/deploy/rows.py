"""Files as raw rows, read exactly as the data set's own were."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from kdbench import kinds
from kdbench.base.errors import UserError, nearest
from kdbench.base.progress import Progress
from kdbench.contract import Rows
from kdbench.data.decode import tables
from kdbench.data.decode.cache import Decoded
from kdbench.data.decode.classnames import class_names
from kdbench.data.decode.columns import Writer
from kdbench.data.decode.decoded import decode_part
from kdbench.data.decode.folders import content, features, unknown_classes
from kdbench.data.decode.inputs import Input, SoundInput, VectorInput
from kdbench.data.decode.partfiles import part_files, shard_of
from kdbench.data.decode.place import Place
from kdbench.data.decode.specification import Label, Part, SetSpec, Target
from kdbench.data.decode.table import Row, Table
from kdbench.data.feed.described import column, rows_of
from kdbench.deploy.about import About, Raw

PART: Part = "test"


def read(raw: Raw, files: Sequence[Path]) -> Tensor:
    """Files as raw rows (N, ...), N at least 1.

    Raises:
        UserError: a file that is not there, or not what the rows are made of.
    """
    return read_sized(raw, files)[0]


def read_sized(raw: Raw, files: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """The same, and (N, 2) height and width of pictures as they came.

    Raises:
        UserError: as of :func:`read`.
    """
    form = _of_files(raw)
    for file in files:
        if file.is_dir():
            raise UserError(f"{file}: a folder; name the files in it, or let `kdbench score` read a labelled folder")
        if not file.is_file():
            beside = [item.name for item in file.parent.iterdir()] if file.parent.is_dir() else []
            raise UserError(f"{file}: no such file{nearest(file.name, beside)}")
    with tempfile.TemporaryDirectory(prefix="kdbench-") as folder:
        writer = Writer(form, Path(folder) / f"{PART}.{raw.name}", len(files))
        came = []
        for file in files:
            writer.add({form.column: _value(form, file)}, str(file))
            came.append(writer.came)
        writer.close()
        held = column(form, Decoded(Path(folder), {}, "files"), PART, raw.name, "")
        return held[torch.arange(len(files))], torch.tensor(came, dtype=torch.float32)


def _of_files(raw: Raw) -> Input:
    if raw.form is None or isinstance(raw.form, SoundInput):
        made = "of samples in tables" if raw.form is not None else f"by the data source: rows of shape {raw.shape}"
        raise UserError(
            f"input {raw.name!r} is made {made}, not of files; use the network from Python (docs/deploy.md)"
        )
    return raw.form


def _value(form: Input, file: Path) -> object:
    return features(file, form) if isinstance(form, VectorInput) else {"bytes": content(file)}


def labelled(about: About, folder: Path, scratch: Path, progress: Progress) -> Rows:
    """The rows of a labelled folder: class folders, ``metadata.csv`` with files, or tables, as the task's own data.

    Args:
        scratch: an empty folder that outlives the rows.

    Raises:
        UserError: nothing of that form there, classes that the network does not know, or a bad row.
    """
    if not folder.is_dir():
        beside = [item.name for item in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise UserError(f"{folder}: no such folder{nearest(folder.name, beside)}")
    if kinds.kind(about.kind).placed:
        raise UserError(
            f"{about.words}: a folder of pictures with places in them is a data set of its own: `kdbench new task` "
            "writes one; a result file of the run's test pictures is scored with --predictions"
        )
    spec = _spec(about)
    _one_part(spec, folder)
    classes = list(about.answer.classes)
    table = _by_name(tables.open_part(spec, folder, PART, classes or None), spec.aim, classes)
    if table.passed:
        progress.say(table.passed)
    facts = decode_part(spec, PART, table, scratch, Place(None, scratch, progress))
    return rows_of(spec, Decoded(scratch, {"parts": {PART: facts}}, str(folder)), PART)


def _spec(about: About) -> SetSpec:
    """A folder of rows as a data set, all of them its test part."""
    raw, answer = about.raw, about.answer
    if raw.form is None or answer.column is None:
        what = f"input {raw.name!r} is" if raw.form is None else f"targets of a {about.kind} task are"
        raise UserError(f"{what} made by the data source of {about.origin.task}, so that no folder holds rows of it")
    of_classes = answer.range is None
    return SetSpec(
        name="folder", title="a folder", folders=["folder"], parts={"train": ["train"], PART: ["."]},
        inputs={raw.name: raw.form}, licence="its owner's", megabytes=1,
        label=Label(
            column=answer.column, classes=answer.outputs, names=list(answer.classes) if answer.texts else None
        ) if of_classes else None,
        target=Target(column=answer.column, range=answer.range) if answer.range is not None else None,
    )  # fmt: skip


def _one_part(spec: SetSpec, folder: Path) -> None:
    """Refuses tables of several parts: a training part would be scored with the others."""
    parts = sorted({shard_of(Path(path).stem) for path in part_files(spec, folder, PART).tables})
    if len(parts) > 1:
        raise UserError(f"{folder}: tables of {', '.join(parts)}; put those to be scored into a folder of their own")


def _by_name(table: Table, label: str, classes: Sequence[str]) -> Table:
    """A table whose classes have names of its own, with the numbers that the network gives these names."""
    names = class_names(table, label)
    if table.classes is not None or names is None or names == list(classes):
        return table
    number = {name: place for place, name in enumerate(classes)}

    def rows(columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        for at, row in table.read(columns):
            if row.get(label) is not None and 0 <= row[label] < len(names):
                if (name := names[row[label]]) not in number:
                    raise UserError(f"{at}: {unknown_classes([name], classes)}")
                row = {**row, label: number[name]}
            yield at, row

    return replace(table, read=rows)
