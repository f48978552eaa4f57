"""Nets that are not kdbench's own: any ``nn.Module``, declared by a name, a factory and what is read of it. No torch.

Who brings one writes ``@kdbench.net("name", maps=[...])`` above a function of an input's shape and a number of classes:
in a notebook, in a file named with ``--local``, or in the module of an entry point of the group ``kdbench.nets``.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from kdbench.base import plugins
from kdbench.base.errors import UserError
from kdbench.specs.registry import SLUG

if TYPE_CHECKING:
    from torch import nn

Factory = Callable[[tuple[int, ...], int], "nn.Module"]
"""``factory(input_shape, classes)``: a freshly initialised module; a regression asks for one class."""
Function = TypeVar("Function", bound=Callable[..., Any])
Layout = Literal["channels first", "channels last", "tokens"]
MAIN = "__main__"
INPUT = ":in"
"""Behind a module's path: what the module reads instead of what it returns."""


@dataclass(frozen=True)
class Taps:
    """What is read of a module while it runs, by paths of its submodules (``layer1``, ``layer1.1.relu:in``).

    A path stands for what the submodule returns, with ``:in`` for what it reads. Of a submodule that runs several times
    the last counts; of a tuple the first tensor.

    Attributes:
        maps: stage outputs after the activation, shallow to deep.
        preact: the same stages before it; where none is given, what the activations read that the maps end in.
        norms: batch norms whose outputs are ``preact``.
        stem: output of the stem after its activation.
        emb: pooled penultimate features, (N, D); the classifier's input unless given.
        classifier: the last linear layer; unless given, the one whose output is the module's.
        layout: of the maps: (N, C, ...), (N, ..., C), or (N, tokens, C), patches in rows behind ``extra`` other tokens.
        extra: class and register tokens before the patches.
    """

    maps: tuple[str, ...] = ()
    preact: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()
    stem: str | None = None
    emb: str | None = None
    classifier: str | None = None
    layout: Layout = "channels first"
    extra: int = 0


@dataclass(frozen=True)
class Declared:
    """A net under its name.

    Attributes:
        module: where it was declared; its code decides what the net computes.
    """

    name: str
    factory: Factory
    taps: Taps
    module: str

    @property
    def where(self) -> str:
        """Where it was declared, as people know it."""
        return where(self.module)


_declared: dict[str, Declared] = {}
shown: dict[str, str] = {}
"""Module to what people call it: a local file's path as it was typed."""


def net(
    name: str,
    *,
    maps: Sequence[str] = (),
    preact: Sequence[str] = (),
    norms: Sequence[str] = (),
    stem: str | None = None,
    emb: str | None = None,
    classifier: str | None = None,
    layout: Layout = "channels first",
    extra: int = 0,
) -> Callable[[Function], Function]:
    """Decorates a factory ``f(input_shape, classes) -> nn.Module``, and makes it a net of this name; see :class:`Taps`.

    Tasks name it as they name any other net: ``pair.student.net=name``.

    Raises:
        UserError: no name for a net, or there is another of this name.
    """
    texts = {"maps": maps, "preact": preact, "norms": norms}
    for key, value in texts.items():
        if isinstance(value, str):
            raise UserError(f"net {name!r}: {key} is a list of module paths; write {key}=[{value!r}]")
    if layout not in (known := ("channels first", "channels last", "tokens")):
        raise UserError(f"net {name!r}: layout is one of {', '.join(map(repr, known))}, not {layout!r}")
    taps = Taps(tuple(maps), tuple(preact), tuple(norms), stem, emb, classifier, layout, extra)

    def declare(factory: Function) -> Function:
        if not callable(factory):
            raise UserError(f"net {name!r}: a function of (input_shape, classes) is decorated, not {factory!r}")
        module = getattr(factory, "__module__", None) or MAIN
        add(Declared(name, factory, taps, module))
        return factory

    return declare


def add(made: Declared, *, replace: bool = False) -> None:
    """Makes a net known to this process; one of a notebook or script takes the place of what it was.

    Raises:
        UserError: no name for a net, or there is another of this name.
    """
    if not SLUG.fullmatch(made.name):
        raise UserError(f"a net's name is of [a-z0-9_.-], not {made.name!r}; rename it")
    there = _declared.get(made.name)
    owner = there.module if there is not None else _plugins().get(made.name, made.module)
    if not (replace or owner == made.module == MAIN or (there is None and _within(made.module, owner))):
        raise UserError(f"two nets are called {made.name!r}, in {where(owner)} and in {made.where}; rename one")
    _declared[made.name] = made


def names() -> list[str]:
    """Every declared net, those of plug-ins among them; imports none of them."""
    return sorted({*_declared, *_plugins()})


def find(name: str) -> Declared | None:
    """A declared net, None where none has this name. Imports the plug-in that brings it.

    Raises:
        UserError: the plug-in cannot be imported, or declares no such net.
    """
    if name not in _declared and (module := _plugins().get(name)) is not None:
        try:
            importlib.import_module(module)
        except UserError:
            raise
        except Exception as error:  # whatever its code does
            raise UserError(
                f"the net {name!r} of {module} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        if name not in _declared:
            own = ", ".join(one.name for one in _declared.values() if _within(one.module, module)) or "none"
            raise UserError(
                f"plug-in {module!r} registers the net {name!r} and declares {own}; decorate its factory with "
                f"@kdbench.net({name!r})"
            )
    return _declared.get(name)


def declared() -> dict[str, Declared]:
    """The nets that this process knows already."""
    return dict(_declared)


def forget(name: str) -> None:
    """A declared net is known no more."""
    _declared.pop(name, None)


@functools.cache
def _plugins() -> dict[str, str]:
    """Net to the module that declares it."""
    return plugins.packages(plugins.NETS)


def _within(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def where(module: str) -> str:
    """A module as people know it."""
    return shown.get(module, "this session" if module == MAIN else module)
