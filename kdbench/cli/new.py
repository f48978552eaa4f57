"""The verbs ``new ...``: start something of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdbench.base.errors import UserError, printable
from kdbench.cli.common import Verbs, app

if TYPE_CHECKING:
    from kdbench.scaffold import Made

Standalone = Annotated[
    bool, typer.Option("--standalone", help="A package of its own instead of files in this checkout.")
]
To = Annotated[Path | None, typer.Option("--to", help="With --standalone: its folder [default: kdbench-NAME].")]

new_app = Verbs(help="Start a method, a task or a net of your own.", rich_markup_mode=None)
app.add_typer(new_app, name="new")


@new_app.command("method")
def new_method(
    name: Annotated[str, typer.Argument(help="Small letters, digits and '_'.")],
    standalone: Standalone = False,
    to: To = None,
) -> None:
    """Write a method that runs as it stands: card, adapter and parity-test skeleton."""
    from kdbench.scaffold import new_method as write

    _require_standalone(to, standalone, "a method lies in methods/")
    _tell(write(name, standalone=standalone, to=to))


@new_app.command("net")
def new_net(
    name: Annotated[str, typer.Argument(help="Small letters, digits and '_'.")],
    to: Annotated[Path | None, typer.Option("--to", help="Folder of the file [default: this one].")] = None,
) -> None:
    """Write a Python file with a net that runs as it stands, to be named with --local."""
    from kdbench.scaffold import new_net as write

    _tell(write(name, to=to))


@new_app.command("task")
def new_task(
    name: Annotated[str, typer.Argument(help="One or two parts, e.g. birds or birds/small.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Pictures: a folder a class, beneath train/ and test/ or not.")
    ] = None,
    parquet: Annotated[
        Path | None,
        typer.Option("--parquet", help="A parquet file of pictures, or a folder of its pieces; a test file is found."),
    ] = None,
    coco: Annotated[
        Path | None,
        typer.Option("--coco", help="Pictures with objects: a folder with COCO files, masks too where all have one."),
    ] = None,
    voc: Annotated[
        Path | None, typer.Option("--voc", help="Pictures with objects: a folder with Pascal VOC's XML files.")
    ] = None,
    hub: Annotated[str | None, typer.Option("--hub", help="A data set of the hub, e.g. owner/name.")] = None,
    config: Annotated[str | None, typer.Option("--config", help="With --hub: which of its configurations.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="Column of the classes, if it is not plain.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="Column of a number to predict.")] = None,
    image: Annotated[str | None, typer.Option("--image", help="Column of the pictures, if it is not plain.")] = None,
    standalone: Standalone = False,
    to: To = None,
) -> None:
    """Write a task on your own pictures that runs as it stands: its file, and one that describes the data.

    Both are written into this folder; within a checkout of kdbench, into tasks/ and kdbench/data/sets/.
    """
    from kdbench.records.provenance import ROOT
    from kdbench.scaffold import new_task as write

    _require_standalone(to, standalone, "a task lies in tasks/")
    given = {"folder": folder, "parquet": parquet, "coco": coco, "voc": voc, "hub": hub}
    named = [(source, str(where)) for source, where in given.items() if where is not None]
    if len(named) != 1:
        raise UserError("name the data with one of --folder, --parquet, --coco, --voc and --hub")
    source, where = named[0]
    here = None if Path.cwd().is_relative_to(ROOT) else Path.cwd()
    columns = {"label": label, "target": target, "image": image}
    _tell(write(name, source, where, config=config, **columns, standalone=standalone, to=to, here=here))  # type: ignore[arg-type]


def _tell(made: Made) -> None:
    """What was written, what to know about the data, and what to type next."""
    for path in made.files:
        print(f"wrote {made.folder / path}")
    for note in made.notes:
        print(f"note: {printable(note)}")
    print("next:")
    for line in made.next:
        print(f"  {line}")


def _require_standalone(to: Path | None, standalone: bool, otherwise: str) -> None:
    if to is not None and not standalone:
        raise UserError(f"--to belongs to --standalone; without it {otherwise} of the checkout")
