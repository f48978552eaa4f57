"""The verbs ``new ...``: start something of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdbench.cli.common import app

new_app = typer.Typer(help="Start a method of your own.", rich_markup_mode=None)
app.add_typer(new_app, name="new")


@new_app.command("method")
def new_method(
    name: Annotated[str, typer.Argument(help="Small letters, digits and '_'.")],
    standalone: Annotated[
        bool, typer.Option("--standalone", help="A package of its own instead of a folder in this checkout.")
    ] = False,
    to: Annotated[
        Path | None, typer.Option("--to", help="With --standalone: its folder [default: kdbench-NAME].")
    ] = None,
) -> None:
    """Write a method that runs as it stands: card, adapter and parity-test skeleton."""
    from kdbench.errors import UserError
    from kdbench.scaffold import new_method as write

    if to is not None and not standalone:
        raise UserError("--to belongs to --standalone; without it a method lies in methods/ of the checkout")
    made = write(name, standalone=standalone, to=to)
    for path in made.files:
        print(f"wrote {made.folder / path}")
    print("next:")
    for line in made.next:
        print(f"  {line}")
