"""Which rulesets of an index are asked for: results of different ones are never compared."""

from __future__ import annotations

from kdbench.base.errors import UserError
from kdbench.index.store import Store
from kdbench.specs.tuned import AS_PUBLISHED, TUNED, require_ruleset


def chosen(store: Store, ruleset: str) -> list[str]:
    """The rulesets that a name stands for: ``published``, ``tuned`` for all of searched values, or one such as
    ``tuned-8``.

    Raises:
        UserError: no such name, or an index without a run of it.
    """  # fmt: skip
    require_ruleset(ruleset)
    there = [row["ruleset"] for row in store.query("SELECT DISTINCT ruleset FROM runs ORDER BY ruleset")]
    found = [name for name in there if ruleset in (name, TUNED if name != AS_PUBLISHED else AS_PUBLISHED)]
    if not found:
        raise UserError(
            f"no results of ruleset {ruleset}; there are {', '.join(there) or 'none at all'}; "
            "`kdbench tune` searches values, `kdbench evaluate --ruleset tuned` takes them"
        )
    return found
