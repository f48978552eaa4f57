"""What `kdbench check NET` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.markup import escape

if TYPE_CHECKING:
    from kdbench.checks.nets import NetChecked


def checked(found: NetChecked) -> Iterator[str]:
    """What a net offers, a line each, then the methods that can read it as their student and as their teacher."""
    shape = "x".join(map(str, found.input_shape))
    yield f"{escape(found.name)}: {found.params:,} parameters on inputs of {shape}, {found.classes} classes"
    for field, row in found.shapes.items():
        yield f"  {escape(field)}: {escape(_shape(row))}"
    for word in ("classifier", "norm", "tail"):
        yield f"  {word}: {'yes' if word in found.offers else 'no'}"
    yield from _methods("student", found.student)
    yield from _methods("teacher", found.teacher)


def _shape(row: tuple[int, ...]) -> str:
    return f"({', '.join(('N', *map(str, row)))})" if row else "(N,)"


def _methods(role: str, missing: Mapping[str, frozenset[str]]) -> Iterator[str]:
    fit = [name for name, lacks in missing.items() if not lacks]
    yield f"as {role} of {len(fit)} of {len(missing)} methods: {escape(', '.join(fit)) or 'none'}"
    reasons: dict[str, list[str]] = {}
    for name, lacks in missing.items():
        if lacks:
            reasons.setdefault(", ".join(sorted(lacks)), []).append(name)
    for words, names in sorted(reasons.items()):
        yield f"  not of {escape(', '.join(names))}: no {words}"
