"""Looks at someone's pictures - a folder, a parquet file, a data set of the hub - for what a data set file must say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kdbench import hub
from kdbench.data.columns import file_content, opened
from kdbench.data.folders import METADATA, PICTURES
from kdbench.errors import UserError, nearest

PART_WORDS = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation", "eval", "dev")}
"""What people call the parts."""
LABELS = ("label", "labels", "class", "fine_label", "category", "y", "target")
"""What people call the column of the classes, the most usual first."""
SAMPLE = 256
"""Pictures looked at."""
TEST_EVERY = 5
"""Every n-th row becomes a test row where there is no test part."""
DENSE_UP_TO = 64
"""Pictures of one size up to this are kept as pixels, others compressed."""


@dataclass(frozen=True)
class Aim:
    """What is predicted: ``classes`` of whole numbers from 0, or a number within ``low`` and ``high``."""

    column: str
    classes: int | None = None
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class Found:
    """What a data set file says, as far as the data tell.

    Attributes:
        parts: name of the training and of the test part.
        test_every: where no test part was found.
        rows: training rows, about.
        column: of the pictures.
        size: pixels of a side, None where sizes differ or are large.
        channels: 1 or 3.
        convert: pictures of several modes are among them.
        mean, std: by channel, of the pictures that were looked at.
    """

    parts: Mapping[str, str]
    test_every: int | None
    rows: int
    aim: Aim
    column: str
    size: int | None
    channels: int
    convert: bool
    mean: Sequence[float]
    std: Sequence[float]


def in_folder(folder: Path) -> Found:
    """A folder with a folder a part or none, and in it a folder of pictures a class.

    Raises:
        UserError: it holds no pictures in class folders; says what is expected.
    """
    inner = [path.name for path in folder.iterdir() if path.is_dir()]
    parts, every = _parts(inner)
    if every is not None:
        parts = {"train": ".", "test": "."}
    if (folder / parts["train"] / METADATA).is_file():
        raise UserError(
            f"{folder / parts['train'] / METADATA}: describe a listed folder by hand: copy a file of kdbench/data/sets"
        )
    classes: dict[str, list[str]] = {}
    for part in dict.fromkeys(parts.values()):
        classes[part] = sorted(path.name for path in (folder / part).iterdir() if path.is_dir())
    names = classes[parts["train"]]
    if len(names) < 2:
        raise UserError(
            f"{folder / parts['train']}: {len(names)} class folders; a folder a class with pictures in it is expected, "
            "beneath train/ and test/ where the data are split already"
        )
    other = next((part for part, found in classes.items() if found != names), None)
    if other is not None:
        odd = sorted(set(classes[other]) ^ set(names))
        raise UserError(f"{folder / other}: its class folders are not those of {parts['train']}/: {', '.join(odd[:5])}")
    files = [
        path
        for name in names
        for path in sorted((folder / parts["train"] / name).iterdir())
        if path.suffix.lower() in PICTURES
    ]
    if not files:
        raise UserError(f"{folder / parts['train']}: no picture in the class folders; {', '.join(sorted(PICTURES))}")
    some = ((str(path), path.read_bytes()) for path in files[:: max(1, len(files) // SAMPLE)])
    rows = len(files) - (len(files) // every if every else 0)
    return _found(parts, every, rows, Aim("label", classes=len(names)), "image", some)


def in_parquet(file: Path, label: str | None, target: str | None) -> tuple[Path, Found]:
    """A parquet file of pictures, and the test part beside it if there is one; the folder to read, and what is in it.

    Raises:
        UserError: not readable, no column of pictures, or it is not plain which column is predicted.
    """
    try:
        table = pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file}: cannot be read as parquet ({str(error).splitlines()[0]})") from error
    parts, every = _parts([path.name.removesuffix(".parquet") for path in file.parent.glob("*.parquet")])
    if every is not None or not file.name.startswith(parts["train"]):
        stem, _, shard = file.stem.partition("-")
        parts, every = dict.fromkeys(("train", "test"), stem if shard[:1].isdigit() else file.stem), TEST_EVERY
    schema = table.schema_arrow
    column = _picture_column(schema, file)
    aim = _aim(table, file, label, target)
    rows = table.metadata.num_rows - (table.metadata.num_rows // every if every else 0)
    first = next(table.iter_batches(SAMPLE, columns=[column])).to_pylist()
    some = ((f"{file.name} row {n}", file_content(row[column], f"{file.name} row {n}")) for n, row in enumerate(first))
    return file.parent, _found(parts, every, rows, aim, column, some)


def on_hub(name: str, config: str | None, label: str | None, target: str | None) -> tuple[str, Found]:
    """A data set of the hub, its first rows streamed; the revision that was looked at, and what is in it.

    Raises:
        UserError: not to be had, no pictures, or it is not plain which column is predicted.
    """
    import datasets  # slow to import, and needed here alone
    from huggingface_hub import HfApi

    try:
        revision = HfApi().dataset_info(name).sha
        splits = datasets.get_dataset_split_names(name, config, revision=revision)
        parts, every = _parts(splits)
        if every is not None:
            parts = dict.fromkeys(("train", "test"), splits[0])
        info = datasets.load_dataset_builder(name, config, revision=revision).info
        stream = datasets.load_dataset(name, config, split=parts["train"], streaming=True, revision=revision)
        rows = list(stream.decode(False).take(SAMPLE))
    except Exception as error:  # the hub's client raises many types, all of which mean: not to be had now
        advice = "is the id right, are you logged in?"
        if hub.unreached(error):
            advice = "connect this machine, or get the files elsewhere and name them with --folder or --parquet"
        raise UserError(f"{name} cannot be had from the hub ({hub.why(error)}); {advice}") from error
    if not rows:
        raise UserError(f"{name}: its part {parts['train']} is empty")
    seen = pa.Table.from_pylist(rows)
    column = _picture_column(seen.schema, name)
    chosen, number = _aim_column(seen.schema, name, label, target)
    values = [row[chosen] for row in rows]
    features = info.features or {}
    classes = getattr(features.get(chosen), "num_classes", None)
    aim = Aim(chosen, low=min(values), high=max(values)) if number else Aim(chosen, classes or max(values) + 1)
    about = info.splits[parts["train"]].num_examples if info.splits else len(rows)
    some = ((f"{name} row {n}", file_content(row[column], f"{name} row {n}")) for n, row in enumerate(rows))
    return str(revision), _found(parts, every, about - (about // every if every else 0), aim, column, some)


def _parts(names: Sequence[str]) -> tuple[dict[str, str], int | None]:
    """Names of the parts among names; without a test part, how many rows to hold back."""
    found = {}
    for part, words in PART_WORDS.items():
        match = [
            word for word in words if any(name == word or name.startswith((f"{word}-", f"{word}_")) for name in names)
        ]
        if match:
            found[part] = match[0]
    return (found, None) if len(found) == len(PART_WORDS) else ({}, TEST_EVERY)


def _picture_column(schema: pa.Schema, where: Any) -> str:
    """The first column of picture files."""

    def holds_files(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return any(field.name == "bytes" for field in kind)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    column = next((field.name for field in schema if holds_files(field.type)), None)
    if column is None:
        raise UserError(f"{where}: no column of picture files among {', '.join(schema.names)}")
    return str(column)


def _aim_column(schema: pa.Schema, where: Any, label: str | None, target: str | None) -> tuple[str, bool]:
    """The column to predict, and whether it is a number rather than a class."""
    chosen = label or target
    if chosen is None:
        whole = [field.name for field in schema if pa.types.is_integer(field.type)]
        chosen = next((name for name in LABELS if name in whole), whole[0] if len(whole) == 1 else None)
    if chosen is None:
        raise UserError(
            f"{where}: which column is predicted? name classes with --label or a number with --target; there are "
            f"{', '.join(schema.names)}"
        )
    if chosen not in schema.names:
        option = "--label" if label else "--target"
        raise UserError(f"{where}: {option} {chosen!r} is no column{nearest(chosen, schema.names)}")
    kind = schema.field(chosen).type
    wanted = pa.types.is_integer(kind) or (target is not None and pa.types.is_floating(kind))
    if not wanted:
        raise UserError(
            f"{where}: column {chosen!r} is of type {kind}; classes are whole numbers from 0, targets are numbers"
        )
    return chosen, target is not None


def _aim(table: pq.ParquetFile, file: Path, label: str | None, target: str | None) -> Aim:
    chosen, number = _aim_column(table.schema_arrow, file, label, target)
    values = np.concatenate(
        [batch.column(0).to_numpy(zero_copy_only=False) for batch in table.iter_batches(columns=[chosen])]
    )
    if not len(values) or not np.isfinite(values.astype(float)).all():
        raise UserError(f"{file}: column {chosen!r} is empty or has rows without a number")
    low, high = float(values.min()), float(values.max())
    if number:
        return Aim(chosen, low=low, high=high)
    if low != 0 or high < 1:
        raise UserError(f"{file}: column {chosen!r} runs from {low:g} to {high:g}; number the classes from 0")
    return Aim(chosen, classes=int(high) + 1)


def _found(
    parts: Mapping[str, str], every: int | None, rows: int, aim: Aim, column: str, files: Iterator[tuple[str, bytes]]
) -> Found:
    """What some picture files have in common."""
    modes, sizes, sums, squares, count = set(), set(), np.zeros(3), np.zeros(3), 0
    for where, content in files:
        try:
            picture = opened(content, where)[0]
            modes.add(picture.mode)
            sizes.add(picture.size)
            pixels = np.asarray(picture.convert("RGB"), dtype=np.float64).reshape(-1, 3) / 255
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{where}: the picture is cut off or damaged ({error}); get the file again") from error
        sums, squares, count = sums + pixels.sum(0), squares + np.square(pixels).sum(0), count + len(pixels)
    width, height = next(iter(sizes))
    size = width if len(sizes) == 1 and width == height <= DENSE_UP_TO else None
    channels = 1 if modes == {"L"} and size is not None else 3
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0)).clip(min=0.01)
    return Found(
        parts=parts,
        test_every=every,
        rows=rows,
        aim=aim,
        column=column,
        size=size,
        channels=channels,
        convert=len(modes) > 1 or modes <= {"P", "RGBA", "LA", "1", "CMYK"},
        mean=[round(float(value), 4) for value in mean[:channels]],
        std=[round(float(value), 4) for value in std[:channels]],
    )
