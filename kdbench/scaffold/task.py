"""``kdbench new task``: a task on someone's own pictures, and the file that describes the data."""

from __future__ import annotations

import functools
import re
import shlex
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from kdbench import __version__
from kdbench.base.errors import UserError, nearest
from kdbench.base.yamlfile import read_as
from kdbench.data import sources
from kdbench.data.decode.specification import SetSpec, set_names, shared_name
from kdbench.records.provenance import ROOT
from kdbench.scaffold.files import Made, write
from kdbench.specs import registry
from kdbench.specs.task import TaskSpec

BESIDE = {"tasks/{name}.yaml": "task.yaml", "kdbench/data/sets/{set}.yaml": "set.yaml"}
"""Files of a task in a checkout, and their templates."""
HERE = {"{name}.yaml": "task.yaml", "sets/{set}.yaml": "set.yaml"}
"""Files of a task in a folder of one's own."""
STANDALONE = {
    "pyproject.toml": "task_pyproject.toml",
    "README.md": "task_README.md",
    "{package}/__init__.py": "",
    "{package}/tasks/{name}.yaml": "task.yaml",
    "{package}/sets/{set}.yaml": "set.yaml",
}
"""Files of a package of its own."""
OBJECTS = {"task.yaml": "task_objects.yaml", "set.yaml": "set_objects.yaml"}
"""Templates that stand in the place of others where pictures have objects."""
PART = re.compile(r"[a-z0-9][a-z0-9_.-]*")
Source = Literal["folder", "parquet", "hub", "coco", "voc"]
WITH_OBJECTS = ("coco", "voc")
"""Sources of pictures with objects."""


def new_task(
    name: str,
    source: Source,
    where: str,
    *,
    config: str | None = None,
    label: str | None = None,
    target: str | None = None,
    image: str | None = None,
    standalone: bool = False,
    to: Path | None = None,
    here: Path | None = None,
) -> Made:
    """Looks at the data and writes a task that runs as it stands: two small nets, 30 epochs, not ranked.

    Args:
        name: of the task, one or two parts; the first is the data set's name too.
        source: what ``where`` is: a folder, a parquet file, an id of the hub, a folder as COCO or Pascal VOC has it.
        config: of a data set of the hub that has several.
        label, target: column of the classes, or of a number to predict.
        image: column of the pictures.
        standalone: a package with entry points instead of files in this checkout.
        to: folder of the standalone package; ``kdbench-<data set>`` here when None.
        here: a folder of one's own, for a task that is named by its path; None for this checkout.

    Raises:
        UserError: the name is taken or malformed, the data are not as expected, a file is there already, or this is no
            checkout.
    """
    data_set = _checked(name)
    if here is not None and not standalone and "/" in name:
        raise UserError(f"{name!r}: a task in a folder of yours is named by its file, in one part without '/'")
    if not standalone and here is None and not (ROOT / "tasks").is_dir():
        raise UserError("kdbench runs outside a checkout; give --standalone for a package of your own")
    if label is not None and target is not None:
        raise UserError("give --label for classes or --target for a number, not both")
    if source in ("folder", *WITH_OBJECTS) and (label or target or image):
        said = "the class is the folder's name" if source == "folder" else "classes are those of the objects"
        raise UserError(f"--label, --target and --image name columns; in a folder of pictures {said}")
    if source != "hub" and config is not None:
        raise UserError("--config belongs to --hub")
    found = _look(source, where, config, label, target, image)
    facts, typed = {"name": name, "set": data_set, **found}, name
    if standalone:
        package = re.sub(r"\W", "_", f"kdbench_{data_set}")
        folder, plan = (to or Path(f"kdbench-{data_set}")).absolute(), STANDALONE
        facts |= {"package": package, "version": __version__, "nested": "/" in name}
        first: tuple[str, ...] = (f"pip install -e {shlex.quote(str(folder))}",)
    elif here is not None:
        folder, plan, first, typed = here, HERE, (), f"./{name}.yaml"
    else:
        folder, plan, first = ROOT, BESIDE, ()
    then: tuple[str, ...] = (
        f"kdbench check {typed}", f"kdbench evaluate --method plain --task {typed} --smoke",
    )  # fmt: skip
    if source in WITH_OBJECTS:
        plan = {path: OBJECTS.get(template, template) for path, template in plan.items()}
    if here is not None and source not in WITH_OBJECTS:
        then += (f"kdbench distill --task {typed}",)
    judge = functools.partial(_sound, name, data_set)
    return Made(folder, write(folder, plan, facts, judge), (*first, *then), tuple(found["notes"]))


def _sound(name: str, data_set: str, path: Path, text: str) -> None:
    """Refuses a file that could not be read back, for a name in the data that no file can state."""
    if path.suffix != ".yaml":
        return
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / path.name
        written.write_text(text, encoding="utf-8")
        try:
            if path.parent.name == "sets":
                read_as(SetSpec, written, name=data_set)
            else:
                read_as(TaskSpec, written, name=name)
        except UserError as error:
            why = re.sub(rf"{re.escape(str(written))}(:\d+)?: ", "", str(error))
            raise UserError(f"these data cannot be described: {why}; rename the file, folder or column") from error


def _checked(name: str) -> str:
    """The data set's name, once both names are free and well-formed."""
    parts = name.split("/")
    if len(parts) > 2 or not all(PART.fullmatch(part) for part in parts) or "__" in name or len(name) > 60:
        raise UserError(
            f"{name!r} is no name for a task: one part, or two with a '/', of small letters, digits, '-', '_' and '.', "
            "without '__', at most 60"
        )
    if name in registry.task_files():
        raise UserError(f"there is a task {name!r} already; `kdbench show task {name}` shows it, choose another name")
    if name in registry.methods():
        raise UserError(f"there is a method {name!r}; `kdbench check {name}` would not know which, choose another name")
    data_set = parts[0]
    if (shared := shared_name(data_set)) is not None:
        raise UserError(shared)
    if data_set in set_names() or data_set.replace("_", "-") in sources.names():
        like = next((task for task in registry.task_files() if task.partition("/")[0] == data_set), None)
        model = f"; for another task on it copy the file of {like!r}" if like else ""
        raise UserError(f"there is a data set {data_set!r} already{model}; choose another first part for your own data")
    return data_set


def _look(
    source: Source, where: str, config: str | None, label: str | None, target: str | None, image: str | None
) -> dict[str, Any]:
    """What the templates say about the data."""
    from kdbench.scaffold import hubset, objects, parquet, pictures, sample  # import numpy and pyarrow

    if source in WITH_OBJECTS:
        given = Path(where).expanduser()
        if not given.is_dir():
            beside = [item.name for item in given.parent.iterdir()] if given.parent.is_dir() else []
            raise UserError(f"--{source} {where}: there is no such folder{nearest(given.name, beside)}")
        if not _is_text(str(given.absolute())):
            raise UserError(f"{given}: a folder whose name is not UTF-8 cannot stand in a file; rename it")
        return objects.look(given, source)
    path, hub, revision = None, None, None
    if source == "hub":
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", where):
            raise UserError(f"--hub {where!r} is no id of the hub; it has the form owner/name")
        hub = where
        revision, found = hubset.on_hub(where, config, label, target, image)
    else:
        given = Path(where).expanduser()
        if not (given.is_dir() or (source == "parquet" and given.is_file())):
            beside = [item.name for item in given.parent.iterdir()] if given.parent.is_dir() else []
            raise UserError(f"--{source} {where}: there is no such {source}{nearest(given.name, beside)}")
        if source == "folder":
            path, found = pictures.in_folder(given)
        else:
            path, found = parquet.in_parquet(given, label, target, image)
        if not _is_text(str(path.absolute())):
            raise UserError(f"{path}: a folder whose name is not UTF-8 cannot stand in a file; rename it")
    height, width = found.look.size or (sample.SHRUNK, sample.SHRUNK)
    return {
        **asdict(found.look),
        **asdict(found),
        "dense": found.look.size is not None,
        "size": height if height == width else [height, width],
        "resize": sample.shrunk()[1],
        "crop": max(1, min(height, width) // 8),
        "classes": found.aim.classes,
        "names": found.aim.names,
        "low": found.aim.low,
        "high": found.aim.high,
        "aim_column": found.aim.column,
        "path": str(path.absolute()) if path is not None else None,
        "hub": hub,
        "config": config,
        "revision": revision,
    }


def _is_text(name: str) -> bool:
    """Whether a name is UTF-8, as everything in a file must be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
