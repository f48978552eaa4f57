"""Objects as files: written by the process that has them, read by those it starts, from the user's own home alone."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle

from kdbench.base.content import is_library
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.specs.local import OBJECT

FILE = ".object.pkl"
"""Hidden, for its bytes differ from process to process: what an object is known by is its content."""
DIGITS = 16
_here: dict[Path, Any] = {}
"""Objects that this process gave itself: read back they would be others, or change what the user holds."""


def remember(path: Path, thing: Any) -> None:
    """In this process a file stands for the object that it was made of."""
    _here[path] = thing


def save(thing: Any, what: str) -> bytes:
    """An object as bytes, with the code of the user's own modules in them.

    Raises:
        UserError: it cannot be carried to another process.
    """
    try:
        with _by_value():
            return cloudpickle.dumps(thing)
    except Exception as error:  # of whatever hangs on it
        raise UserError(
            f"{what} cannot be carried to another process ({type(error).__name__}: {' '.join(str(error).split())}); "
            "make what cannot be copied (files, locks, devices, generators) inside the function or class that uses it"
        ) from error


def load(path: Path) -> Any:
    """The object of a file.

    Raises:
        UserError: it cannot be read here.
    """
    if path in _here:
        return _here[path]
    try:
        return cloudpickle.loads(path.read_bytes())
    except Exception as error:  # of whatever is missing here
        raise UserError(
            f"{path.parent.name}: the object cannot be made again here ({type(error).__name__}: {error}); give it anew"
        ) from error


@contextmanager
def _by_value() -> Iterator[None]:
    """Within the block, modules that are no libraries go along: another process may not find them."""
    own = [
        module for name, module in list(sys.modules.items())
        if name != "__main__" and getattr(module, "__file__", None) and not is_library(name)
    ]  # fmt: skip
    taken = []
    for module in own:
        if module.__name__ in sys.modules and module.__name__ not in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.register_pickle_by_value(module)
            taken.append(module)
    try:
        yield
    finally:
        for module in taken:
            cloudpickle.unregister_pickle_by_value(module)


def folder(home: Home, digest: str, fill: Callable[[Path], None]) -> Path:
    """The folder of an object in the home, filled once."""
    final = home.objects / digest[:DIGITS]
    if (final / OBJECT).is_file():
        return final
    home.objects.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.objects, prefix=".making-") as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        fill(made)
        (made / OBJECT).write_text(f"{digest}\n")
        try:
            made.rename(final)
        except OSError:
            if not (final / OBJECT).is_file():  # not another process that was faster, but what one left behind
                shutil.rmtree(final, ignore_errors=True)
                made.rename(final)
    return final
