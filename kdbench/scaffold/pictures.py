"""Looks at a folder of pictures for what a data set file must say."""

from __future__ import annotations

from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.data.decode.classfolders import class_folders, differing, inner, subfolders
from kdbench.data.decode.folders import METADATA, PICTURES
from kdbench.data.decode.table import held_back, lone_class, one_row
from kdbench.scaffold import partnames
from kdbench.scaffold.aims import Aim
from kdbench.scaffold.found import SAMPLE, VALIDATION, Found, looked, one_part


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
    return folder, Found(parts, every, rows, aim, "image", *looked(some, notes))


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
    parts, every, note = one_part(alone if whole else ".")
    unlabelled = [
        f"{folder / name}: without class folders, so it is not the test part" for name in (called or ("", []))[1]
    ]
    return parts, every, [*unlabelled, note]
