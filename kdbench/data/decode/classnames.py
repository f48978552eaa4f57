"""Names of classes, where data have more than their numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kdbench.data.decode.table import Table

if TYPE_CHECKING:
    import pyarrow as pa


def class_names(table: Table, column: str) -> list[str] | None:
    """Names of the classes in the order of their numbers: of class folders, or as `datasets` wrote them; None without.

    Args:
        column: of the labels.
    """
    if table.classes is not None:
        return list(table.classes)
    return label_names(table.schema).get(column) if table.schema is not None else None


def label_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Columns that `datasets` wrote as ClassLabel, and the names of their classes."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        named = {name: of["names"] for name, of in features.items() if of.get("_type") == "ClassLabel"}
        return {name: [str(one) for one in names] for name, names in named.items() if name in schema.names}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
