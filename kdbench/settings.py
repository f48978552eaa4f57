"""What a recorded run was set to: its protocol, and what was overridden. Needs no torch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from kdbench.files import canonical_json, sha256
from kdbench.record import Record

METHOD = "method."
"""What the keys of a method's hyper-parameters start with on the command line."""


def known_by(record: Record) -> dict[str, Any]:
    """What the index keeps of a record's settings, to tell which runs may be compared.

    Returns:
        ``protocol``: hash of the data, pair, training and score; ``student_protocol``: the same with the pair's
        student alone; ``own_params``: whether a hyper-parameter was overridden.
    """
    protocol = record.provenance.config_resolved.get("protocol")
    whole: Mapping[str, Any] = protocol if isinstance(protocol, Mapping) else {}
    pair = whole.get("pair")
    alone = dict(whole)
    if isinstance(pair, Mapping):
        alone["pair"] = pair.get("student")
    return {
        "protocol": sha256(canonical_json(whole)),
        "student_protocol": sha256(canonical_json(alone)),
        "own_params": any(key.startswith(METHOD) for key in told(record)),
    }


def told(record: Record) -> dict[str, str]:
    """The overrides in a record's command, as they were typed: key to value."""
    try:
        words = shlex.split(record.provenance.command)
    except ValueError:  # a quote that was never closed
        words = record.provenance.command.split()
    pairs = (word.partition("=") for word in words if "=" in word and not word.startswith("-"))
    return {key: value for key, _, value in pairs}
