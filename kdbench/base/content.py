"""What a Python object is, by content: the same object in another process has the same digest, a changed one another.

Of functions and classes the source counts where it is found, else their code; and all that they refer to, but for
libraries, which are known by name. Of tensors and arrays the values count.
"""

from __future__ import annotations

import ast
import dis
import enum
import functools
import hashlib
import inspect
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError
from kdbench.base.meaning import meaning

_LIBRARIES = {"site-packages", "dist-packages"}
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), range, slice)
_UNSAID = {
    "__dict__", "__weakref__", "__module__", "__doc__", "__annotations__", "__abstractmethods__", "_abc_impl",
    "__firstlineno__", "__static_attributes__", "__qualname__", "__orig_bases__", "__parameters__", "__slotnames__",
}  # fmt: skip


class Unstable(UserError):
    """An object that has no content to be known by."""


class Content:
    """The digest of one object.

    Attributes:
        digest: sha256 as hexadecimal digits.
        own: modules of kdbench that it refers to, whose code is known elsewhere.

    Raises:
        Unstable: something in it has no content; the message says what, and where it hangs.
    """

    def __init__(self, thing: Any) -> None:
        self.own: set[str] = set()
        self._hash = hashlib.sha256()
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []
        self._path: list[str] = []
        self._feed(thing)
        self.digest = self._hash.hexdigest()

    def _say(self, *words: object) -> None:
        self._hash.update(("\x1f".join(map(str, words)) + "\x1e").encode("utf-8", "surrogatepass"))

    def _below(self, name: str, thing: Any) -> None:
        self._path.append(name)
        self._say("at", name)
        self._feed(thing)
        self._path.pop()

    def _feed(self, thing: Any) -> None:
        if isinstance(thing, _PLAIN):
            self._say(type(thing).__name__, repr(thing))
            return
        if id(thing) in self._seen:
            self._say("again", self._seen[id(thing)])
            return
        self._seen[id(thing)] = len(self._seen)
        self._alive.append(thing)  # or its number could be another's later on
        self._one(thing)

    def _one(self, thing: Any) -> None:
        if (values := _values(thing)) is not None:
            self._say("values", *values[0])
            self._hash.update(values[1])
        elif isinstance(thing, list | tuple):
            self._say(type(thing).__name__, len(thing))
            for number, item in enumerate(thing):
                self._below(str(number), item)
        elif isinstance(thing, dict | types.MappingProxyType):
            self._say(type(thing).__name__, len(thing))
            for key in sorted(thing, key=repr):
                self._feed(key)
                self._below(str(key), thing[key])
        elif isinstance(thing, set | frozenset):
            self._say(type(thing).__name__, *sorted(Content(item).digest for item in thing))
        elif isinstance(thing, enum.Enum):
            self._say("enum", type(thing).__qualname__, thing.name)
        elif isinstance(thing, types.ModuleType):
            self._module(thing)
        elif isinstance(thing, type):
            self._class(thing)
        elif isinstance(thing, types.FunctionType):
            self._function(thing)
        elif isinstance(thing, types.MethodType):
            self._below("function", thing.__func__)
            self._below("self", thing.__self__)
        elif isinstance(thing, functools.partial):
            self._below("partial", (thing.func, thing.args, dict(thing.keywords)))
        elif isinstance(thing, property):
            self._below("property", (thing.fget, thing.fset, thing.fdel))
        elif isinstance(thing, staticmethod | classmethod):
            self._below(type(thing).__name__, thing.__func__)
        elif isinstance(thing, types.CodeType):
            self._code(thing)
        elif isinstance(thing, types.BuiltinFunctionType | types.BuiltinMethodType) and not _bound(thing):
            self._say("builtin", thing.__module__, thing.__qualname__)
        else:
            self._object(thing)

    def _module(self, module: types.ModuleType) -> None:
        self._say("module", module.__name__)
        if not is_library(module.__name__) and (file := getattr(module, "__file__", None)):
            self._say(meaning(ast.parse(Path(file).read_bytes())))
        self._note(module.__name__)

    def _class(self, cls: type) -> None:
        self._say("class", cls.__module__ if is_library(cls.__module__) else "", cls.__qualname__)
        if is_library(cls.__module__):
            self._note(cls.__module__)
            return
        self._below("bases", cls.__bases__)
        for name in sorted(vars(cls).keys() - _UNSAID):
            member = vars(cls)[name]
            if not isinstance(member, types.GetSetDescriptorType | types.MemberDescriptorType):
                self._below(name, member)

    def _function(self, function: types.FunctionType) -> None:
        if is_library(function.__module__ or ""):
            self._say("function", function.__module__, function.__qualname__)
            self._note(function.__module__)
            return
        self._say("function", function.__qualname__)
        source = _source(function)
        if source is not None:
            self._say("source", source)
        else:
            self._code(function.__code__)
        self._below("defaults", (function.__defaults__, function.__kwdefaults__))
        for name in _globals(function.__code__):
            if name in function.__globals__:
                self._below(name, function.__globals__[name])
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                self._below(name, cell.cell_contents)
            except ValueError:
                self._say("empty", name)

    def _code(self, code: types.CodeType) -> None:
        self._say("code", code.co_code.hex(), *code.co_names, *code.co_varnames, *code.co_freevars)
        for constant in code.co_consts:
            self._feed(constant)

    def _object(self, thing: Any) -> None:
        try:
            parts = thing.__reduce_ex__(4)
        except Exception as error:  # whatever its class does
            where = ".".join(self._path) or "it"
            raise Unstable(
                f"{where} is a {type(thing).__name__}, which has no content to be known by ({error})"
            ) from error
        self._say("object", type(thing).__module__, type(thing).__qualname__)
        if isinstance(parts, str):
            self._say(parts)
            return
        make, given, *rest = parts
        self._below("class", (make, given))
        for part in rest:
            self._feed(list(part) if isinstance(part, Iterator) else part)

    def _note(self, name: str | None) -> None:
        if name is not None and name.startswith("kdbench."):
            self.own.add(name)


def is_library(name: str) -> bool:
    """Whether a module is Python's, kdbench's or an installed package's; what it holds is then known by name."""
    top = name.partition(".")[0]
    if top == "__main__" or not name:
        return False
    if top in sys.stdlib_module_names or top == "kdbench":
        return True
    module = sys.modules.get(name) or sys.modules.get(top)
    file = getattr(module, "__file__", None)
    return module is not None and (file is None or bool(_LIBRARIES & set(Path(file).parts)))


def _bound(thing: Any) -> bool:
    owner = getattr(thing, "__self__", None)
    return owner is not None and not isinstance(owner, types.ModuleType | type)


def _values(thing: Any) -> tuple[tuple[object, ...], bytes] | None:
    """Shape, type and bytes of a tensor or an array; None of anything else."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(thing, torch.Tensor):
        if thing.is_meta or thing.layout is not torch.strided:
            raise Unstable(
                f"a tensor {'on the meta device' if thing.is_meta else f'of layout {thing.layout}'} has no values"
            )
        flat = thing.detach().cpu().contiguous().reshape(-1)
        facts = (type(thing).__name__, tuple(thing.shape), thing.dtype, thing.requires_grad)
        return facts, flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    if torch is not None and isinstance(thing, torch.dtype | torch.device | torch.layout | torch.memory_format):
        return (thing,), b""
    if numpy is not None and isinstance(thing, numpy.ndarray) and thing.dtype != object:
        return ("array", thing.shape, thing.dtype), numpy.ascontiguousarray(thing).tobytes()
    if numpy is not None and isinstance(thing, numpy.generic | numpy.dtype):
        return (type(thing).__name__, repr(thing)), b""
    return None


def _source(function: types.FunctionType) -> str | None:
    """The meaning of a function's source; None where it is not found or is a part of a line."""
    if function.__name__ == "<lambda>":
        return None
    try:
        return repr(meaning(ast.parse(textwrap.dedent(inspect.getsource(function)))))
    except (OSError, TypeError, SyntaxError, ValueError, IndexError):
        return None


def _globals(code: types.CodeType) -> list[str]:
    """Names that a function looks up in its module, those of functions within it too."""
    found = {one.argval for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= set(_globals(constant))
    return sorted(found)


def of(thing: Any, what: str) -> Content:
    """The content of an object.

    Args:
        what: names it in errors.

    Raises:
        UserError: it has none that is stable.
    """
    try:
        return Content(thing)
    except Unstable as error:
        raise UserError(
            f"{what} cannot be known again in another process: {error}; make that part inside the function or class "
            "that uses it"
        ) from error
    except RecursionError as error:
        raise UserError(f"{what} is nested too deeply to be known by its content") from error
