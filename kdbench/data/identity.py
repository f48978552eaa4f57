"""Which data were found: the official ones, a known copy, or others. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdbench.data.setspec import PART_NAMES, Identity, SetSpec
from kdbench.errors import UserError

if TYPE_CHECKING:
    from kdbench.data.decoded import Decoded


def identify(spec: SetSpec, copy: str | None, decoded: Decoded) -> tuple[str, bool]:
    """Which data these are.

    Returns:
        The name they go by, and whether they are what was asked for as far as is known.

    Raises:
        UserError: they are another known copy; names it and its tasks.
    """
    wanted = spec.known(copy)
    # A known copy is told apart by its content alone: it may have all that is known of the official data.
    for other in [None, *spec.copies]:
        known = spec.known(other)
        if other != copy and known.content and same(known, decoded.facts):
            name = spec.copy_name(other)
            about = f" ({spec.copies[other].about})" if other is not None else ""
            raise UserError(
                f"{decoded.origin} holds {name}{about}, not {spec.copy_name(copy)}; run the tasks {name}/... instead"
            )
    if same(wanted, decoded.facts):
        return spec.copy_name(copy), True
    return f"{spec.copy_name(copy)}-other-{decoded.facts['pool'][:8]}", False


def same(known: Identity, facts: Mapping[str, Any]) -> bool:
    """Whether something is known of a data set, and nothing of it contradicts what was found."""
    parts = facts["parts"]
    pairs = [
        (value, parts[part][key])
        for key in ("rows", "content", "labels")
        for part, value in getattr(known, key).items()
    ]
    if known.pool is not None:
        pairs.append((known.pool, facts["pool"]))
    if known.lossless:
        pairs.append((False, any(parts[part]["jpeg"] for part in PART_NAMES)))
    return bool(pairs) and all(expected == found for expected, found in pairs)
