"""A factory, or a module with its weights, as a net."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kdbench.base import content
from kdbench.base.errors import UserError
from kdbench.base.files import sha256
from kdbench.base.home import Home
from kdbench.objects.pickled import FILE, folder, remember, save
from kdbench.specs import local, nets
from kdbench.specs.nets import Declared, Taps
from kdbench.specs.registry import SLUG

SOURCE = '''"""Written by kdbench for the net {name!r}, which was given as a Python object."""

from pathlib import Path

{imports}from kdbench.objects.pickled import load
from kdbench.specs.nets import Declared, Taps, add

CONTENT = "{digest}"
add(Declared({name!r}, load(Path(__file__).with_name("{file}")), {taps!r}, __name__), replace=True)
'''


@dataclass(frozen=True)
class Tapped:
    """A module and what is read of it; see :func:`kdbench.tap`.

    Attributes:
        input: the input it reads, where a batch has several; None for the first.
    """

    module: nn.Module
    taps: Taps
    input: str | None = None


@dataclass
class Given:
    """A module as a factory: a copy whose layers are drawn anew; ``own`` weights are those that it came with."""

    module: nn.Module

    def __call__(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        made = copy.deepcopy(self.module).requires_grad_(True).train().cpu()
        for layer in made.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
        return made

    def shipped(self) -> Mapping[str, Tensor]:
        """The module's own state."""
        return self.module.state_dict()


def net(
    given: nn.Module | Tapped | Callable[[tuple[int, ...], int], nn.Module],
    home: Home,
    name: str | None = None,
    **taps: Any,
) -> str:
    """Makes a factory or a module known as a net; its name.

    Args:
        given: ``factory(input_shape, classes)``, perhaps one under ``@kdbench.net``, or a module, perhaps with taps.
        home: keeps it for other processes.
        name: its own in small letters when None.
        taps: as of :func:`kdbench.specs.nets.net`; of a declared factory those that were declared.

    Raises:
        UserError: it is neither, its name is taken, or it cannot be carried to another process.
    """
    if isinstance(given, Tapped):
        return net(given.module, home, name, **{**vars(given.taps), **taps})
    declared = next((one for one in nets.declared().values() if one.factory is given), None)
    if declared is not None and not taps and name in (None, declared.name):
        return _kept(declared.name, given, declared.taps, home)
    if not isinstance(given, nn.Module) and not callable(given):
        shown = " ".join(repr(given).split())[:80]
        raise UserError(f"{shown} is no net; give a module, a function of (input_shape, classes), or a net's name")
    own = type(given).__name__ if isinstance(given, nn.Module) else getattr(given, "__name__", type(given).__name__)
    chosen = (name or own).lower().strip("_<>")
    if not SLUG.fullmatch(chosen):
        raise UserError(f"a net's name is of [a-z0-9_.-], not {chosen!r}; give it one with name=")
    factory = Given(copy.deepcopy(given)) if isinstance(given, nn.Module) else given
    lists: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in taps.items()}
    try:
        read = Taps(**lists)
    except TypeError as error:
        raise UserError(f"net {chosen!r}: {error}; taps are {', '.join(Taps.__dataclass_fields__)}") from error
    return _kept(chosen, factory, read, home)


def session_nets(home: Home) -> list[str]:
    """Makes the nets that this session has declared known to other processes; their names.

    Raises:
        UserError: one cannot be carried there.
    """
    own = [one for one in nets.declared().values() if one.module == nets.MAIN]
    return [_kept(one.name, one.factory, one.taps, home) for one in own]


def _kept(name: str, factory: Any, taps: Taps, home: Home) -> str:
    what = f"the net {name!r}"
    found = content.of(factory, what)
    _require_free(name)

    def fill(made: Path) -> None:
        own = made / name
        own.mkdir()
        imports = "".join(f"import {module}  # noqa: F401\n" for module in sorted(found.own))
        text = SOURCE.format(name=name, imports=imports, digest=found.digest, file=FILE, taps=taps)
        (own / "__init__.py").write_text(text, encoding="utf-8")
        (own / FILE).write_bytes(save(factory, what))

    made = folder(home, sha256(f"net/{name}/{found.digest}/{taps!r}"), fill)
    remember(made / name / FILE, factory)
    local.add(str(made / name))
    return name


def _require_free(name: str) -> None:
    """Raises UserError where a net that is no object of this session has the name."""
    there: Declared | None = nets.find(name)
    if there is not None and there.module != nets.MAIN and not there.module.startswith(local.PACKAGE):
        raise UserError(f"two nets are called {name!r}, in {there.where} and in this session; rename one")
