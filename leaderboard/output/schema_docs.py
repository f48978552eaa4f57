"""The record's fields as a table, read off the JSON Schema, so that the documentation cannot drift from the code."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from kdbench.records.files import json_schema


@functools.cache
def schema_rows() -> tuple[tuple[str, str, str, str], ...]:
    """The record's fields as (path, type, required, meaning), read off the JSON Schema."""
    schema = json_schema()
    rows: list[tuple[str, str, str, str]] = []
    _walk(schema, schema["$defs"], "", rows, 0)
    return tuple(rows)


def _walk(
    node: Mapping[str, Any], defs: dict[str, Any], path: str, rows: list[tuple[str, str, str, str]], depth: int
) -> None:
    for name, field in node.get("properties", {}).items():
        where = f"{path}.{name}" if path else name
        need = "yes" if name in node.get("required", ()) else "no"
        inner = _inner(field, defs)
        about = " ".join((field.get("description") or next((d.get("description", "") for d in inner), "")).split())
        rows.append((where, _type(field), need, _plain(about)))
        if depth < 4:
            for model in inner:
                _walk(model, defs, where + ("[]" if "array" in _type(field) else ""), rows, depth + 1)


def _inner(field: dict[str, Any], defs: dict[str, Any]) -> list[dict[str, Any]]:
    """Models a field may hold, directly, as one of several or as an item."""
    nodes = [field, *field.get("anyOf", ()), *field.get("oneOf", ()), *([field["items"]] if "items" in field else [])]
    nodes += [item["items"] for item in field.get("anyOf", ()) if isinstance(item.get("items"), dict)]
    names = [node["$ref"].rpartition("/")[2] for node in nodes if "$ref" in node]
    return [defs[name] for name in names]


def _type(field: dict[str, Any]) -> str:
    if "const" in field:
        return f"{field['const']!r}"
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    several = field.get("anyOf") or field.get("oneOf")
    if several:
        return " | ".join(dict.fromkeys(_type(one) for one in several))
    kind = field.get("type", "any")
    if kind == "array" and isinstance(field.get("items"), dict):
        return f"array of {_type(field['items'])}"
    return str(kind)


def _plain(text: str) -> str:
    """A docstring without its markup."""
    return re.sub(r":\w+:`~?\.?([^`]*)`", r"\1", text).replace("``", "")
