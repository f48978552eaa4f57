"""Which data were found: the official ones, a known copy, or others. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdbench.base.errors import UserError
from kdbench.base.fields import OTHER, YOURS
from kdbench.data.decode.specification import PART_NAMES, Identity, SetSpec

if TYPE_CHECKING:
    from kdbench.data.decode.cache import Decoded


MINE = "they are yours: nothing is known elsewhere that they could be compared with"
"""Why data of one's own are not vouched for."""


def identify(spec: SetSpec, copy: str | None, decoded: Decoded) -> tuple[str, str | None]:
    """Which data these are.

    Returns:
        The name they go by, and why they cannot be vouched for as what was asked for; None if they can.

    Raises:
        UserError: they are another known copy; names it and its tasks.
    """
    wanted = spec.known(copy)
    # First of all the other ones: a copy may have all that is known of the official data, such as the pool.
    for other in [None, *spec.copies]:
        known = spec.known(other)
        if other != copy and known.proves and doubt(known, decoded.facts) is None:
            name = spec.copy_name(other)
            about = f" ({spec.copies[other].about})" if other is not None else ""
            raise UserError(
                f"{decoded.origin} holds {name}{about}, not {spec.copy_name(copy)}; run the tasks {name}/... instead"
            )
    if copy is None and spec.own:
        return f"{spec.name}{YOURS}{decoded.facts['pool'][:8]}", MINE
    why = doubt(wanted, decoded.facts)
    # A pinned revision of the hub is named by the hash of what it holds.
    pinned = spec.hub is not None and spec.hub.revision is not None and decoded.origin == f"hub:{spec.hub.id}"
    if why is None and not (wanted.proves or pinned):
        way = f"; {spec.hub.id} of the hub is" if spec.hub is not None and spec.hub.revision is not None else ""
        why = f"nothing on file proves that these files are the original ones{way}"
    if why is None:
        return spec.copy_name(copy), None
    return f"{spec.copy_name(copy)}{OTHER}{decoded.facts['pool'][:8]}", why


def doubt(known: Identity, facts: Mapping[str, Any]) -> str | None:
    """What contradicts that these are the known data, None if nothing does."""
    parts = facts["parts"]
    if known.lossless and any(parts[part]["jpeg"] for part in PART_NAMES):
        return "it has pictures that are JPEG files, the original has none"
    for key, words in WORDS.items():
        for part, value in getattr(known, key).items():
            if (there := parts.get(part, {}).get(key)) != value:
                found = f": {there}, not {value}" if key == "rows" else ""
                return f"its {part} part has other {words}{found}"
    if known.pool is not None and known.pool != facts["pool"]:
        return "its rows are others"
    return None


WORDS = {
    "rows": "numbers of rows", "labels": "labels in order", "content": "content", "sums": "pixel values",
    "squares": "pixel values",
}  # fmt: skip
"""What is known of each part, in words."""
