"""Files of something new, rendered from templates and written all or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError
from kdbench.base.files import write_atomic

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Made:
    """What was written: the folder the files lie in, their paths in it, what to type next and what to know before."""

    folder: Path
    files: tuple[Path, ...]
    next: tuple[str, ...]
    notes: tuple[str, ...] = ()


def write(
    folder: Path,
    plan: Mapping[str, str],
    facts: Mapping[str, Any],
    judge: Callable[[Path, str], None] = lambda path, text: None,
) -> tuple[Path, ...]:
    """Writes files below a folder.

    Args:
        plan: path, with facts in braces, to the name of its template; an empty name is an empty file.
        facts: what templates may use; texts that come from data go through ``tojson``, which YAML reads as well.
        judge: is shown each path and text before anything is written, and raises where one is not sound.

    Raises:
        UserError: a file is there already, or not sound; then nothing is written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # What is written is source code and YAML, not HTML: nothing to escape for a browser.
    render = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    texts = {
        Path(path.format(**facts)): render.get_template(f"{template}.j2").render(facts) if template else ""
        for path, template in plan.items()
    }
    for path in texts:
        if (folder / path).exists():
            raise UserError(f"{folder / path} is there already; move it away, or choose another name or --to")
    for path, text in texts.items():
        judge(path, text)
    for path, text in texts.items():
        write_atomic(folder / path, text)
    return tuple(texts)
