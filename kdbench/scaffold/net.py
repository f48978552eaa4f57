"""``kdbench new net``: a Python file with a module and the declaration that makes it a net."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.scaffold.files import Made, write
from kdbench.specs import registry


def new_net(name: str, *, to: Path | None = None) -> Made:
    """Writes a small convolutional net.

    Args:
        name: of the net and its file.
        to: the folder; the one this runs in when None.

    Raises:
        UserError: the name is taken or malformed, or the file is there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or len(name) > 40:
        raise UserError(
            f"{name!r} is no name for a net: small letters, digits and '_', a letter first, at most 40, for it is a "
            "Python file too"
        )
    if name in models.known():
        raise UserError(f"there is a net {name!r} already; choose another name")
    if name in registry.methods() or name in registry.task_files():
        raise UserError(f"there is a method or task {name!r}; `kdbench check {name}` would not know which to check")
    folder = (to or Path()).absolute()
    cls = "".join(part.capitalize() for part in name.split("_"))
    made = write(folder, {"{name}.py": "net.py"}, {"name": name, "cls": cls, "function": f"make_{name}"})
    file = shlex.quote(f"./{name}.py" if to is None else str(folder / f"{name}.py"))
    check = f"kdbench check {name} --local {file} --shape 1,8,8"
    run = f"kdbench evaluate -m reviewkd -t digits/few-shot --seed 0 --local {file} pair.student.net={name}"
    return Made(folder, made, (check, run))
