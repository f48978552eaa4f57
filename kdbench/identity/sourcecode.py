"""The code behind a method or a net, by content: its module and what that imports of its own kind. Needs no torch.

What changes no result changes no digest: comments, docstrings, annotations, layout. The engine is not in it: its
version is part of every specification. Libraries are not either: a record's environment states them. A process asks
once for each, for it imports each once.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdbench import ENGINE_VERSION, models
from kdbench.base import plugins
from kdbench.base.content import of
from kdbench.base.files import canonical_json, sha256, sha256_file
from kdbench.base.meaning import meaning
from kdbench.specs import nets, registry, tuned
from kdbench.specs.card import Card
from kdbench.specs.config import MethodConfig

RELEASED = Path(__file__).parent / "released.json"
"""Of each method's version and of each net's module, the digests of code that gives the results of that version."""
_OWN = ("kdbench.methods", "kdbench.models")
"""Packages of kdbench that are followed; the rest is the engine."""
_NO_CODE = {"card.yaml", "README.md"}
_NO_CODE_BELOW = {plugins.VECTORS, tuned.FOLDER}
SHOWN = 16
"""Digits of a digest that a record keeps."""
_LIBRARIES = {"site-packages", "dist-packages"}


def of_method(config: MethodConfig) -> dict[str, str]:
    """Name to code of a configured method and of the one inside it: ``1.0.0``, or ``1.0.0+<digest>`` if not released.

    Raises:
        UserError: a package is not installed.
    """
    return of_card(config.ref.card) | (of_method(config.inner) if config.inner is not None else {})


def of_card(card: Card) -> dict[str, str]:
    """Name to code of a method, as :func:`of_method`; one that is in no package is known by its version alone."""
    if card.name not in registry.method_packages():
        return {card.name: card.version}
    return {card.name: label(method_digest(card.name), card.version, released()["methods"].get(card.name, {}))}


def of_nets(names: Sequence[str]) -> dict[str, str]:
    """Net to code of its module, as for a method, and so for a net within; the version is the engine's."""
    version, known = str(ENGINE_VERSION), released()["nets"]
    inner = [body for net in names if (body := models.recipe(net).within) is not None]
    every = sorted({*names, *inner})
    return {net: label(net_digest(net), version, known.get(models.family(net), {})) for net in every}


def label(digest: str, version: str, released: dict[str, list[str]]) -> str:
    """The version alone for code released under it, else the version and the digest's first digits."""
    return version if digest in released.get(version, []) else f"{version}+{digest[:SHOWN]}"


def settled(code: Mapping[str, str], nets: bool = False) -> dict[str, str]:
    """Recorded code by name, in today's words: what was not released when it ran may have been since."""
    known = released()["nets" if nets else "methods"]
    found = {}
    for name, recorded in code.items():
        version, _, digest = recorded.partition("+")
        same = known.get(models.family(name) if nets else name, {}).get(version, [])
        found[name] = version if digest and any(one.startswith(digest) for one in same) else recorded
    return found


def method_digest(name: str) -> str:
    """sha256 over an adapter's package and all it imports of kdbench's methods, or of its own plugin."""
    return _package_digest(registry.method_packages()[name])


@functools.cache
def _package_digest(package: str) -> str:
    folder = plugins.package_folder(package)
    every = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name not in _NO_CODE]
    folders = ((path, path.parts[:-1]) for path in every)
    files = [
        path for path, above in folders if all(part[0] not in "._" and part not in _NO_CODE_BELOW for part in above)
    ]
    names = [".".join([package, *path.with_suffix("").parts]) for path in files if path.suffix == ".py"]
    beside = [path for path in files if path.suffix not in (".py", ".pyc") and path.name[0] != "."]
    return _digest({**_modules(names), **{path.as_posix(): sha256_file(folder / path) for path in beside}})


def net_digest(net: str) -> str:
    """sha256 over a net's settings, its module of :mod:`kdbench.models` and all that imports of that package.

    Of a declared net also over what is read of it and the module that declares it, with what that imports of its own.
    """
    found = models.recipe(net)
    settings = {} if models.family(net) != net else dict(found.settings)  # a pattern's settings stand in the name
    own, parts = f"kdbench.models.{found.module}", {"settings": repr(sorted(settings.items()))}
    if (declared := nets.find(net)) is not None:
        parts["taps"] = repr(declared.taps)
        return _digest({**_code(own, declared.module), **parts, "content": content(declared)})
    if (where := models.folder(net)) is not None and where.is_file():
        parts["config"] = sha256_file(where)
    return _digest({**_code(own), **parts})


def content(declared: nets.Declared) -> str:
    """What a net is that was declared in this session and has no file; empty for one of a file."""
    return of(declared.factory, f"net {declared.name!r}").digest if declared.module == nets.MAIN else ""


@functools.cache
def _code(*modules: str) -> dict[str, str]:
    return _modules(modules)


@functools.cache
def released() -> dict[str, Any]:
    """``methods`` and ``nets``: name to version to digests, as :data:`RELEASED` holds them."""
    if not RELEASED.is_file():
        return {"methods": {}, "nets": {}}
    found: dict[str, Any] = json.loads(RELEASED.read_text())
    return found


def _digest(parts: dict[str, str]) -> str:
    return sha256(canonical_json(parts))


def _modules(names: Sequence[str]) -> dict[str, str]:
    """Module to digest, of these and of all that they import, straight or through others."""
    found: dict[str, str] = {}
    tops = {name.partition(".")[0] for name in names}
    todo = [part for name in names for part in _chain(name)]
    while todo:
        name = todo.pop()
        if name in found or (path := _file(name, tops)) is None:
            continue
        tree = _parsed(path)
        found[name] = sha256_file(path) if tree is None else sha256(repr(meaning(tree)))
        if tree is not None:
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            todo += [part for one in _imports(tree, package) for part in _chain(one)]
    return found


def _chain(name: str) -> Iterator[str]:
    """A module and the packages it lies in, which run before it."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])


def _parsed(path: Path) -> ast.Module | None:
    """The source's syntax tree; None where it does not parse."""
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return None


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Names a module imports; a name imported from a package may be a module of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - (node.level - 1)] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _file(name: str, tops: set[str]) -> Path | None:
    """The source of a module that counts; None for kdbench's engine, libraries, and names that are no modules."""
    own = next((package for package in _OWN if f"{name}.".startswith(f"{package}.")), None)
    if own is not None:
        folder = plugins.package_folder(own)
        rest = name.removeprefix(own).split(".")[1:]
        return _below(folder, rest) if rest else None  # the package itself lists what there is
    top, *rest = name.split(".")
    if top == "kdbench" or top in sys.stdlib_module_names:
        return None
    where = _top(top, top in tops)
    if where is None:
        return None
    if where.is_file():
        return where if not rest else None
    return _below(where, rest)


def _below(folder: Path, parts: Sequence[str]) -> Path | None:
    base = folder.joinpath(*parts)
    candidates = [base / "__init__.py", *([base.with_suffix(".py")] if parts else [])]
    return next((path for path in candidates if path.is_file()), None)


@functools.cache
def _top(name: str, own: bool) -> Path | None:
    """Folder or file of a top-level module; of those in the libraries' folders only the ``own`` ones."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or ()) or ([spec.origin] if spec.origin else [])
    if not places or not Path(places[0]).exists():
        return None
    path = Path(places[0]).resolve()
    return None if not own and _LIBRARIES & set(path.parts) else path
