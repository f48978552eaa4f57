"""Small faults planted in a method's code, one at a time, to see whether its tests notice.

A mutant is one change of one function: a weight in the place of another, a term left out, a number one off, a detach or
a sign gone. It is planted by giving the function another code object, so that everything which holds the function, a
class, a subclass, a module that imported it, has the fault, and taken out again.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import CodeType, FunctionType
from typing import Any

BINARY: dict[type, type] = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Div: ast.Mult, ast.Mult: ast.Div, ast.Pow: ast.Mult}
COMPARED: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
DETACHED = ("no_grad", "inference")
"""Contexts without gradients."""
STRICT = ("strict", "stacklevel", "device")
"""Keywords that decide nothing of a result on the one device there is."""


@dataclass(frozen=True)
class Mutant:
    """A fault.

    Attributes:
        name: module, function, the code that is changed, and how.
        function: what it is planted in.
        code: makes the function's code with the fault.
    """

    name: str
    function: FunctionType
    code: Callable[[], CodeType]

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The function has the fault within the block."""
        own, self.function.__code__ = self.function.__code__, self.code()
        try:
            yield
        finally:
            self.function.__code__ = own


Change = tuple[str, Callable[[ast.AST], Any]]
"""What is changed, and how: takes a copy of the node, gives what stands in its place."""


def changes(node: ast.AST, words: Sequence[str]) -> Iterator[Change]:
    """The faults that a node of a function can have.

    Args:
        words: hyper-parameters that the function reads.
    """
    for kind in (_arithmetic, _numbers, _conditions, _calls, _displays):
        yield from kind(node)
    if isinstance(node, ast.Attribute) and _is_hp(node.value) and len(words) > 1:
        word = words[(words.index(node.attr) + 1) % len(words)]
        yield f"hp.{node.attr} -> hp.{word}", _setting(attr=word)


def _is_hp(node: ast.AST) -> bool:
    return ast.unparse(node) in ("hp", "self.hp")


def _setting(**fields: Any) -> Callable[[ast.AST], ast.AST]:
    def change(node: ast.AST) -> ast.AST:
        for name, value in fields.items():
            setattr(node, name, value)
        return node

    return change


def _arithmetic(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.BinOp):
        if type(node.op) in BINARY and not isinstance(node.left, ast.Constant | ast.JoinedStr):
            op = BINARY[type(node.op)]
            yield f"{type(node.op).__name__} -> {op.__name__}", _setting(op=op())
        if isinstance(node.op, ast.Mult):
            yield "left factor gone", lambda n: n.right
            yield "right factor gone", lambda n: n.left
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield f"{type(node.op).__name__} gone", lambda n: n.operand


def _numbers(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield f"{node.value} -> {node.value + 1}", _setting(value=node.value + 1)
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield f"{node.value} -> {not node.value}", _setting(value=not node.value)
    if isinstance(node, ast.Slice):
        yield f"[{ast.unparse(node)}] -> [:]", _setting(lower=None, upper=None, step=None)


def _conditions(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.If | ast.IfExp):
        for value in (True, False):
            yield f"if {value}", _setting(test=ast.Constant(value))
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED:
        op = COMPARED[type(node.ops[0])]
        yield f"{type(node.ops[0]).__name__} -> {op.__name__}", _setting(ops=[op(), *node.ops[1:]])
    if isinstance(node, ast.BoolOp):
        op = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{type(node.op).__name__} -> {op.__name__}", _setting(op=op())


def _calls(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.With) and any(word in ast.unparse(node.items[0]) for word in DETACHED):
        yield "gradients flow", lambda n: ast.If(ast.Constant(True), n.body, [])
    if not isinstance(node, ast.Call):
        return
    if isinstance(node.func, ast.Attribute) and node.func.attr == "detach":
        yield "detach gone", lambda n: n.func.value
    if len(node.args) >= 2 and not any(isinstance(arg, ast.Starred) for arg in node.args):
        for i in range(len(node.args) - 1):
            if ast.unparse(node.args[i]) != ast.unparse(node.args[i + 1]):
                yield f"arguments {i} and {i + 1} swapped", _swapped(i)
    for i, keyword in enumerate(node.keywords):
        if keyword.arg is not None and keyword.arg not in STRICT:
            yield f"{keyword.arg}= gone", _without("keywords", i)


def _swapped(i: int) -> Callable[[Any], ast.AST]:
    def change(node: Any) -> ast.AST:
        node.args[i], node.args[i + 1] = node.args[i + 1], node.args[i]
        return node  # type: ignore[no-any-return]

    return change


def _without(field: str, place: int) -> Callable[[Any], ast.AST]:
    def change(node: Any) -> ast.AST:
        del getattr(node, field)[place]
        return node  # type: ignore[no-any-return]

    return change


def _displays(node: ast.AST) -> Iterator[Change]:
    """Entries of dictionaries, lists and tuples: terms, groups, parameters, factors."""
    if isinstance(node, ast.Dict) and node.keys:
        for i, value in enumerate(node.values):

            def change(n: Any, place: int = i) -> ast.AST:
                del n.keys[place], n.values[place]
                return n  # type: ignore[no-any-return]

            key = node.keys[i]
            yield f"{'**' if key is None else ''}{ast.unparse(key or value)}: gone", change
    if isinstance(node, ast.List | ast.Tuple) and isinstance(node.ctx, ast.Load) and len(node.elts) >= 2:
        for i, element in enumerate(node.elts):
            yield f"{ast.unparse(element)} gone", _without("elts", i)
    if isinstance(node, ast.AugAssign):
        yield f"{ast.unparse(node)} gone", lambda n: ast.Pass()
    if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp) and node.generators[0].ifs:
        yield "if of a comprehension gone", lambda n: _setting(generators=_unfiltered(n))(n)


def _unfiltered(node: Any) -> list[ast.comprehension]:
    first, *rest = node.generators
    first.ifs = []
    return [first, *rest]


SKIPPED = (ast.Assert, ast.Raise)
"""Statements in which no fault is planted: they decide no number."""


def sites(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Nodes of a function's body, but for what only warns, refuses or annotates."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        if isinstance(node, SKIPPED) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            return
        if isinstance(node, ast.Expr) and ast.unparse(node).startswith("warnings.warn"):
            return
        if isinstance(node, ast.If) and all(isinstance(line, SKIPPED) for line in node.body):
            return
        yield node
        if isinstance(node, ast.keyword) and node.arg in STRICT:
            return
        for name, field in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list"):
                continue
            for child in field if isinstance(field, list) else [field]:
                if isinstance(child, ast.AST):
                    yield from walk(child)

    for line in function.body:
        yield from walk(line)


def mutants(function: FunctionType) -> Iterator[Mutant]:
    """Every fault of a function, in the order of its lines."""
    module = sys.modules[function.__module__]
    tree = _tree(module.__name__)
    place = _found(tree, _path(function))
    words = sorted({n.attr for n in ast.walk(place) if isinstance(n, ast.Attribute) and _is_hp(n.value)})
    where = f"{module.__name__.removeprefix('kdbench.methods.')}:{function.__qualname__}"
    for number, site in enumerate(sites(place)):
        for change, alter in changes(site, words):
            yield Mutant(f"{where}: {_source(site)}: {change}", function, partial(_mutated, function, number, alter))


def rewritten(function: FunctionType, old: str, new: str) -> Mutant:
    """The fault of a function in whose source ``old``, which stands there once, is ``new``."""
    lines, first = inspect.getsourcelines(function)
    text = "".join(lines)
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {function.__qualname__}"
    module = sys.modules[function.__module__]
    whole = inspect.getsource(module).splitlines(keepends=True)
    whole[first - 1 : first - 1 + len(lines)] = [text.replace(old, new)]
    compiled = compile("".join(whole), module.__file__ or "", "exec")
    return Mutant(f"{function.__qualname__}: {old} -> {new}", function, lambda: _code(compiled, _path(function)))


def _path(function: FunctionType) -> list[str]:
    return function.__qualname__.split(".")


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(sys.modules[module]))


def _mutated(function: FunctionType, number: int, alter: Callable[[ast.AST], Any]) -> CodeType:
    """The function's code with one of its sites altered."""
    tree = copy.deepcopy(_tree(function.__module__))
    target = _found(tree, _path(function))
    _replace(target, list(sites(target))[number], alter)
    file = sys.modules[function.__module__].__file__ or ""
    return _code(compile(ast.fix_missing_locations(tree), file, "exec"), _path(function))


def _source(node: ast.AST) -> str:
    """The first line of a node as it would be written, cut off where it is long."""
    return ast.unparse(node).partition("\n")[0][:70]


def _found(tree: ast.AST, path: Sequence[str]) -> ast.FunctionDef:
    node: Any = tree
    for name in path:
        node = next(child for child in node.body if getattr(child, "name", None) == name)
    return node  # type: ignore[no-any-return]


def _replace(root: ast.AST, node: ast.AST, alter: Callable[[ast.AST], Any]) -> None:
    for parent in ast.walk(root):
        for name, field in ast.iter_fields(parent):
            if field is node:
                setattr(parent, name, alter(node))
                return
            if isinstance(field, list) and any(child is node for child in field):
                field[next(i for i, child in enumerate(field) if child is node)] = alter(node)
                return
    raise AssertionError(ast.dump(node))


def _code(code: CodeType, path: Sequence[str]) -> CodeType:
    for name in path:
        code = next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name)
    return code


MAKING = ("__init__", "setup", "needs", "build")


def of_class(cls: type) -> Iterator[FunctionType]:
    """The functions of a method's class that decide how it trains: not its needs, its making and what that calls."""
    own = {name: inspect.unwrap(m.__func__ if isinstance(m, staticmethod) else m) for name, m in vars(cls).items()}
    own = {name: member for name, member in own.items() if isinstance(member, FunctionType)}
    called = {name: set(function.__code__.co_names) & own.keys() for name, function in own.items()}
    making = {name for name in own if name in MAKING}
    while more := {
        name
        for name in own.keys() - making
        if any(name in called[maker] for maker in making) and not any(name in called[o] for o in own.keys() - making)
    }:
        making |= more
    yield from (function for name, function in own.items() if name not in making)
