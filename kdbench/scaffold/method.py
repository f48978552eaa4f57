"""``kdbench new method``: an adapter that trains, its card, and a skeleton of its parity test."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from kdbench import __version__
from kdbench.base.errors import UserError
from kdbench.records.provenance import ROOT
from kdbench.scaffold.files import Made, write
from kdbench.specs import registry

BESIDE = {
    "methods/{name}/card.yaml": "card.yaml",
    "methods/{name}/adapter.py": "adapter.py",
    "methods/{name}/__init__.py": "",
    "tests/parity/{name}/mapping.py": "mapping.py",
}
"""Files of a method in a checkout, and their templates."""
STANDALONE = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "{package}/card.yaml": "card.yaml",
    "{package}/adapter.py": "adapter.py",
    "{package}/__init__.py": "",
    "{package}/parity/mapping.py": "mapping.py",
    "tests/test_{package}.py": "test_package.py",
}
"""Files of a package of its own."""


def new_method(name: str, *, standalone: bool = False, to: Path | None = None) -> Made:
    """Writes a method that trains: cross-entropy and the squared distance of the logits.

    Args:
        name: of the method and its folder.
        standalone: a package with an entry point instead of a folder in this checkout.
        to: folder of the standalone package; ``kdbench-<name>`` here when None.

    Raises:
        UserError: the name is taken or malformed, a file is there already, or this is no checkout.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or len(name) > 40:
        raise UserError(
            f"{name!r} is no name for a method: small letters, digits and '_', a letter first, at most 40, "
            "for it is a Python package too"
        )
    if name in registry.methods() or name in registry.method_packages() or name == "shared":
        raise UserError(
            f"there is a method {name!r} already; `kdbench show method {name}` shows it, choose another name"
        )
    if name in registry.task_files():
        raise UserError(f"there is a task {name!r}; `kdbench check {name}` would not know which, choose another name")
    package = f"kdbench_{name}" if standalone else f"kdbench.methods.{name}"
    facts = {"name": name, "package": package, "adapter": _camel(name), "version": __version__}
    if standalone:
        folder, plan = (to or Path(f"kdbench-{name}")).absolute(), STANDALONE
        facts["parity"] = f"kdbench check {name}"
        then: tuple[str, ...] = (
            f"pip install -e {shlex.quote(str(folder))}",
            f"kdbench check {name}",
            f"pytest {shlex.quote(str(folder / 'tests'))}",
        )
    else:
        if not (ROOT / "methods").is_dir():
            raise UserError("kdbench runs outside a checkout; give --standalone for a package of your own")
        folder, plan = ROOT, BESIDE
        facts["parity"] = f"pytest tests/test_parity.py -k {name}"
        then = (f"kdbench check {name}", f"kdbench evaluate --method {name} --task digits/few-shot --seed 0")
    return Made(folder, write(folder, plan, facts), then)


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))
