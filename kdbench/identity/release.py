"""Writes ``released.json``: that the code as it is gives the results of its versions. ``make released`` runs this."""

from __future__ import annotations

import json
import re
from typing import Any

from kdbench import ENGINE_VERSION, models
from kdbench.base.files import canonical_json
from kdbench.identity import sourcecode
from kdbench.specs import registry

OWN = "kdbench.methods."
SOME = {"<net>": "convnet_w8", "<head>": "linear", "<pyramid>": "c8s8-32"}
"""What may stand in a pattern's place where a number may not."""


def table() -> dict[str, Any]:
    """What :data:`RELEASED` should hold: all it holds, and the digests of the code as it is under its versions."""
    found: dict[str, Any] = json.loads(canonical_json(sourcecode.released()))
    for name, package in registry.method_packages().items():
        if package.startswith(OWN):
            versions = found["methods"].setdefault(name, {})
            _add(versions.setdefault(registry.card(name).version, []), sourcecode.method_digest(name))
    for family in models.own():
        some = re.sub(r"<\w+>", lambda place: SOME.get(place[0], "8"), family)  # of a pattern any net
        digest = sourcecode.net_digest(some)
        _add(found["nets"].setdefault(family, {}).setdefault(str(ENGINE_VERSION), []), digest)
    return found


def _add(digests: list[str], digest: str) -> None:
    if digest not in digests:
        digests.append(digest)


if __name__ == "__main__":
    sourcecode.RELEASED.write_text(json.dumps(table(), indent=1, sort_keys=True) + "\n")
