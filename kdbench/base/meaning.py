"""What Python source means: its syntax without comments, docstrings, annotations and layout."""

from __future__ import annotations

import ast
from typing import Any


def meaning(node: Any) -> Any:
    """A syntax tree as plain values, without what changes no result and what differs between Python's versions."""
    if isinstance(node, ast.AST):
        fields = {name: meaning(value) for name, value in ast.iter_fields(node) if name not in _silent(node)}
        return (type(node).__name__, {name: value for name, value in fields.items() if value not in (None, [])})
    if isinstance(node, list):
        return [meaning(item) for item in node if not _is_text(item)]
    return repr(node) if node is not None else None


def _is_text(node: Any) -> bool:
    """Whether a statement is a string and nothing else: a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _silent(node: ast.AST) -> set[str]:
    """Fields that change no result: annotations of functions, type comments, kinds of string."""
    common = {"type_comment", "type_params", "kind", "ctx", "type_ignores"}
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return common | {"returns"}
    return common | {"annotation"} if isinstance(node, ast.arg) else common
