"""Looks at someone's pictures - a folder, a parquet file, a data set of the hub - for what a data set file must say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kdbench.base import hub
from kdbench.base.errors import UserError
from kdbench.data.decode.classfolders import class_folders, differing, inner, subfolders
from kdbench.data.decode.classfolders import some as first_names
from kdbench.data.decode.columns import file_content
from kdbench.data.decode.folders import METADATA, PICTURES
from kdbench.data.decode.partfiles import shard_of, tables_of
from kdbench.data.decode.table import held_back, is_text, lone_class, one_row
from kdbench.scaffold import aims, partnames
from kdbench.scaffold.aims import Aim
from kdbench.scaffold.sample import Look, look

TEST_EVERY = 5
"""One row in so many becomes a test row where there is no test part."""
VALIDATION = "{} holds validation rows, neither trained on nor tested on; `data.options.score=val` scores on them"
SAMPLE = 256
"""Pictures looked at."""


@dataclass(frozen=True)
class Found:
    """What a data set file says, as far as the data tell.

    Attributes:
        parts: name of the training and of the test part, and of the validation part where there is one.
        test_every: where no test part was found.
        rows: training rows, about.
        column: of the pictures.
        look: what some of the pictures have in common.
        notes: what a person should know about how the data are read.
    """

    parts: Mapping[str, str]
    test_every: int | None
    rows: int
    aim: Aim
    column: str
    look: Look
    notes: Sequence[str] = ()


def _whole(name: str) -> tuple[dict[str, str], int, str]:
    """One part that holds all rows, and what to say about it."""
    note = f"no test part was found: one row in {TEST_EVERY}, of each class, is held back by a draw with a fixed seed"
    return dict.fromkeys(("train", "test"), name), TEST_EVERY, note


def in_folder(folder: Path) -> tuple[Path, Found]:
    """A folder with a folder a part or none, and in it a folder of pictures a class.

    Returns:
        The folder to read, and what is in it.

    Raises:
        UserError: it holds no pictures in class folders; says what is expected.
    """
    folder = inner(folder, PICTURES)
    parts, every, notes = _folder_parts(folder)
    for part in dict.fromkeys(parts.values()):
        if (folder / part / METADATA).is_file():
            raise UserError(
                f"{folder / part / METADATA}: describe a listed folder by hand: copy a file of kdbench/data/sets"
            )
    found = {part: class_folders(folder / name, PICTURES) for part, name in parts.items()}
    train = found["train"]
    for one in found.values():
        if train.folder != one.folder and (
            wrong := differing({each.folder: list(each.files) for each in (train, one)})
        ):
            raise UserError(wrong)
    if len(train.files) < 2 or not any(train.files.values()):
        what = "no picture in the class folders" if len(train.files) > 1 else f"{len(train.files)} class folders"
        raise UserError(
            f"{train.folder}: {what}; a folder a class with pictures in it is expected, beneath a folder a part where "
            f"the data are split already ({partnames.KNOWN}); pictures are {', '.join(sorted(PICTURES))}"
        )
    for one in found.values():
        if one.empty:
            raise UserError(one.empty)
    notes += list(dict.fromkeys(str(one.passed) for one in found.values() if one.passed.counts))
    files = [path for paths in train.files.values() for path in paths]
    labels = [label for label, paths in enumerate(train.files.values()) for _ in paths]
    if every and (lone := lone_class(labels)) is not None:
        raise UserError(f"{train.folder}: {one_row(list(train.files)[lone])}")
    rows = len(files) - (sum(held_back(labels, every)) if every else 0)
    some = ((path, Path(path).read_bytes()) for path in files[:: max(1, len(files) // SAMPLE)])
    aim = Aim("label", classes=len(train.files))
    return folder, Found(parts, every, rows, aim, "image", *_looked(some, notes))


def _folder_parts(folder: Path) -> tuple[dict[str, str], int | None, list[str]]:
    """Names of the parts, how many rows to hold back without a test part, and what to say about it."""
    names = subfolders(folder)
    split = [name for name in names if subfolders(inner(folder / name, PICTURES))]
    found, called = partnames.pair(split), partnames.pair(names)
    if found is not None:
        train, tests = found
        unlabelled = [name for name in partnames.partners(train, names) if name not in split]
        notes = [f"{folder / name}: without class folders, so {tests[0]}/ is the test part" for name in unlabelled[:1]]
        parts = {"train": train, "test": tests[0]}
        if (val := partnames.validation(tests, tests[0])) is not None:
            parts["val"] = val
            notes.append(VALIDATION.format(f"{val}/"))
        return parts, None, notes
    if called is not None and called[0] not in split:
        raise UserError(
            f"{folder}: {called[0]}/ and {called[1][0]}/ are called like parts and hold no class folders; a folder a "
            "class with pictures in it is expected beneath each"
        )
    alone = called[0] if called is not None else next(iter(split), "")
    whole = called is not None or (len(split) == 1 and partnames.is_train(alone))
    parts, every, note = _whole(alone if whole else ".")
    unlabelled = [
        f"{folder / name}: without class folders, so it is not the test part" for name in (called or ("", []))[1]
    ]
    return parts, every, [*unlabelled, note]


def _looked(files: Iterable[tuple[str, bytes]], notes: Sequence[str]) -> tuple[Look, list[str]]:
    found = look(files)
    return found, [*notes, *found.notes]


def in_parquet(given: Path, label: str | None, target: str | None, image: str | None) -> tuple[Path, Found]:
    """A parquet file of pictures, or a folder of some, and the test part beside it if there is one.

    A file stands for itself and its shards (``-00000-of-00002``); those of other names beside it are left alone.

    Returns:
        The folder to read, and what is in it.

    Raises:
        UserError: not readable, no column of pictures, or it is not plain which column is predicted.
    """
    folder, train, others = _named_part(given)
    files = tables_of(folder, train)
    schema = _opened(files[0]).schema_arrow
    column = aims.picture_column(schema, files[0], image)
    named = aims.class_labels(schema)
    chosen, number = aims.aim_column(
        schema, files[0], label, target, named, lambda name: aims.repeats(_values(files, name, {})), texts=True
    )
    texts = is_text(schema.field(chosen).type)
    notes: list[str] = []
    known: dict[Path, list[Any]] = {}
    test = next((part for part in others if _labelled(folder, part, chosen, known, notes, texts)), None)
    parts, every = {"train": train, "test": test or train}, None
    if test is None:
        parts, every, note = _whole(train)
        notes.append(note)
    elif (val := partnames.validation(others, test)) and _labelled(folder, val, chosen, known, notes, texts):
        parts["val"] = val
        notes.append(VALIDATION.format(val))
    read = dict.fromkeys(path for part in parts.values() for path in tables_of(folder, part))
    values = [value for path in read for value in _values([path], chosen, known, texts)]
    own = _values(files, chosen, known, texts)
    if texts:
        aim = aims.read_names(chosen, values, folder)
        notes.append(f"classes are numbered in the order of their names: {first_names(aim.names or [])} (`names`)")
    else:
        aims.read_aim(chosen, number, own, files[0], named.get(chosen))
        aim = aims.read_aim(chosen, number, values, folder, named.get(chosen))
    if aim.classes is not None and (lacking := aim.classes - len(set(values))):
        notes.append(f"{aim.classes - lacking} of {aim.classes} classes (0 to {aim.classes - 1}) occur")
    if test is None and not number and (lone := lone_class(own)) is not None:
        raise UserError(f"{files[0]}: {one_row(lone)}")
    for part in dict.fromkeys(parts.values()) if not number else ():
        odd = sorted(set(own) ^ set(_values(tables_of(folder, part), chosen, known, texts)))
        if odd:
            lacks = part if odd[0] in own else train
            raise UserError(
                f"{folder}: no row of class {odd[0]} in the part {lacks!r}; give all parts rows of every class"
            )
    notes.insert(0, f"read: {', '.join(path.name for path in list(read)[:4])}{', ...' if len(read) > 4 else ''}")
    held = sum(held_back([0] * len(own) if number else own, every)) if every else 0
    first = next(_opened(files[0]).iter_batches(SAMPLE, columns=[column])).to_pylist()
    some = (
        (f"{files[0].name} row {n}", file_content(row[column], f"{files[0].name} row {n}"))
        for n, row in enumerate(first)
    )
    return folder, Found(parts, every, len(own) - held, aim, column, *_looked(some, notes))


def _named_part(given: Path) -> tuple[Path, str, list[str]]:
    """Folder and training part that a path names, and the parts beside it that could be for tests, the best first."""
    if given.is_dir():
        if not _stems(given) and _stems(given / "data"):
            given = given / "data"
        stems = _stems(given)
        found = partnames.pair(stems)
        if found is not None:
            return given, *found
        if not stems:
            raise UserError(f"{given}: no parquet file in it")
        return given.parent, given.name.removesuffix(".parquet") if given.suffix == ".parquet" else given.name, []
    if given.name.startswith("."):
        raise UserError(f"{given}: a hidden file; rename it")
    folder, stem = given.parent, shard_of(given.name.removesuffix(".parquet"))
    if given.name.removesuffix(".parquet") != stem and (folder / f"{stem}.parquet").exists():
        raise UserError(f"{given}: {stem}.parquet lies beside it; keep the one file or the shards")
    return folder, stem, partnames.partners(stem, _stems(folder))


def _stems(folder: Path) -> list[str]:
    """Names of the parts that parquet files of a folder could be."""
    names = (path.name.removesuffix(".parquet") for path in sorted(folder.glob("*.parquet")))
    return list(dict.fromkeys(shard_of(name) for name in names if not name.startswith(".")))


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as parquet ({str(error).splitlines()[0]})") from error


def _values(files: Sequence[Path], column: str, known: dict[Path, list[Any]], texts: bool = False) -> list[Any]:
    """All values of a column; of a file in ``known`` they are not read again."""
    for path in files:
        if path not in known:
            file = _opened(path)
            if column not in file.schema_arrow.names:
                raise UserError(f"{path}: column {column!r} is missing; {', '.join(file.schema_arrow.names)} are there")
            kind = file.schema_arrow.field(column).type
            of = is_text if texts else _is_number
            if not (of(kind) or pa.types.is_null(kind)):
                what = "texts" if texts else "numbers"
                raise UserError(
                    f"{path}: column {column!r} is of type {kind}, {what} are expected as in the first file"
                )
            try:
                known[path] = [value for batch in file.iter_batches(columns=[column]) for value in batch[0].to_pylist()]
            except (OSError, pa.ArrowException) as error:
                raise UserError(f"{path}: cannot be read as parquet ({str(error).splitlines()[0]})") from error
    return [value for path in files for value in known[path]]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _labelled(
    folder: Path, part: str, column: str, known: dict[Path, list[Any]], notes: list[str], texts: bool
) -> bool:
    """Whether the rows of a part have labels; hidden test parts have -1 or nothing there."""
    files = tables_of(folder, part)
    there = all(column in _opened(path).schema_arrow.names for path in files)
    hidden = not there or all(value in (None, -1, "") for value in _values(files, column, known, texts))
    if hidden:
        notes.append(f"{files[0].name}: its rows have no labels in {column!r}, so it is not the test part")
    return not hidden


def on_hub(
    name: str, config: str | None, label: str | None, target: str | None, image: str | None
) -> tuple[str, Found]:
    """A data set of the hub, its first rows streamed; the revision that was looked at, and what is in it.

    Raises:
        UserError: not to be had, no pictures, or it is not plain which column is predicted.
    """
    import datasets  # slow to import, and needed here alone
    from huggingface_hub import HfApi

    try:
        revision = HfApi().dataset_info(name).sha
        splits = datasets.get_dataset_split_names(name, config, revision=revision)
        train, tests = partnames.pair(splits) or (splits[0], [])
        info = datasets.load_dataset_builder(name, config, revision=revision).info

        def some_of(split: str) -> list[dict[str, Any]]:
            stream = datasets.load_dataset(name, config, split=split, streaming=True, revision=revision)
            return list(stream.decode(False).take(SAMPLE))

        rows = some_of(train)
        others = {split: some_of(split) for split in tests}
    except Exception as error:  # the hub's client raises many types, all of which mean: not to be had now
        advice = "is the id right, are you logged in?"
        if hub.unreached(error):
            advice = "connect this machine, or get the files elsewhere and name them with --folder or --parquet"
        raise UserError(f"{name} cannot be had from the hub ({hub.why(error)}); {advice}") from error
    if not rows:
        raise UserError(f"{name}: its part {train} is empty")
    seen = pa.Table.from_pylist(rows)
    column = aims.picture_column(seen.schema, name, image)
    features = info.features or {}
    counts = {key: getattr(feature, "num_classes", None) for key, feature in features.items()}
    named = {key: count for key, count in counts.items() if count and key in seen.schema.names}
    chosen, number = aims.aim_column(
        seen.schema,
        name,
        label,
        target,
        named,
        lambda column: aims.repeats(seen[column].to_pylist()),
        texts=False,
    )
    values = [row[chosen] for row in rows]
    if (missing := next((n for n, value in enumerate(values) if value in (None, -1)), None)) is not None and not number:
        raise UserError(f"{name}: row {missing} has no label in column {chosen!r}; only labelled rows can be used")
    aim = (
        Aim(chosen, low=min(values), high=max(values)) if number else Aim(chosen, named.get(chosen) or max(values) + 1)
    )
    test = next((t for t, of in others.items() if any(row.get(chosen) not in (None, -1) for row in of)), None)
    notes = [f"{hidden}: its rows have no labels, so it is not the test part" for hidden in others if test != hidden][
        :1
    ]
    parts, every = {"train": train, "test": test or train}, None
    if test is None:
        parts, every, note = _whole(train)
        notes.append(note)
    about = info.splits[train].num_examples if info.splits else len(rows)
    some = ((f"{name} row {n}", file_content(row[column], f"{name} row {n}")) for n, row in enumerate(rows))
    about -= about // every if every else 0
    return str(revision), Found(parts, every, about, aim, column, *_looked(some, notes))
