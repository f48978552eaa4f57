"""Published records stay true: this code gives their keys, and on their processor their bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench import identity
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.devices.machine import environment
from kdbench.engine.assemble import load_data, rows_read
from kdbench.records import files as records
from kdbench.records import provenance
from kdbench.records.files import Record
from kdbench.records.folder import records_of
from kdbench.runs import verify
from kdbench.specs import registry
from kdbench.specs.config import Match, run_config
from kdbench.specs.tuned import Tuned

pytestmark = pytest.mark.skipif(not provenance.PUBLISHED.is_dir(), reason="needs the published records of a checkout")


def published(most: int | None = None) -> list[Record]:
    """All of them, or about as many as `most`: every nth of their ids, which say nothing of what they are."""
    found = sorted(records_of(provenance.PUBLISHED), key=lambda path: path.name)
    if most is not None:
        found = found[:: max(1, len(found) // most)]
    sides = [records.side_of(path) for path in found]
    return [records.load(path) for path, side in zip(found, sides, strict=True) if side is None or not side.withdrawn]


def current(record: Record) -> bool:
    """Whether it is of its task's present version; the others are the board's archive."""
    return record.task.version == registry.task(record.task.name).version


@pytest.mark.parametrize("most", [150, pytest.param(None, marks=pytest.mark.slow)], ids=["some", "all"])
def test_published_records_are_found_by_unchanged_code(most: int | None) -> None:
    """Their keys are those that this code gives, and nothing that decides them has changed."""
    rows: dict[Any, Any] = {}
    configs: dict[Any, Any] = {}
    wrong = []
    looked_at = [record for record in published(most) if current(record)]
    assert len(looked_at) > 100
    for record in looked_at:
        match = record.compute_match
        given = Match(match.method, match.ratio, match.spec_hash) if match else None
        searched = Tuned(**record.search.model_dump()) if record.search else None
        asked = (record.method_name, record.task.name, given, searched)
        if asked not in configs:
            config = run_config(record.method_name, record.task.name, match=given, tuned=searched)
            configs[asked] = config, config.spec_hash, identity.of(config)
        config, spec_hash, own = configs[asked]
        here = None
        if record.task.name.startswith("digits/"):
            place = (record.task.name, record.seed)
            if place not in rows:
                everything = rows.setdefault(record.task.name, load_data(config, None, Home(Path()), Progress.silent()))
                rows[place] = rows_read(config, record.seed, everything)
            here = rows[place]
        changed = identity.changes(record, own, config.method.ref.card.version, here)
        if spec_hash != record.spec_hash or changed:
            wrong.append((record.run_id, changed))
    assert wrong == []


def one_a_method(cpu: str, torch: str) -> list[Record]:
    """The first published record with a digest of each method on the digits, of this processor and torch: bits are
    promised for those alone.
    """
    found: dict[str, Record] = {}
    for record in published():
        if not record.task.name.startswith("digits/") or record.digest is None or record.compute_match:
            continue
        if (record.environment.cpu, record.environment.torch) == (cpu, torch):
            found.setdefault(record.method_name, record)
    return list(found.values())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_record_of_each_method_replays_to_the_bit(tmp_path: Path) -> None:
    here = environment(torch.device("cpu"))
    chosen = one_a_method(here["cpu"], here["torch"])
    if not chosen:
        pytest.skip(f"no published record is of {here['cpu']} and torch {here['torch']}")
    home = Home(tmp_path)
    wrong = {
        record.method_name: found.what
        for record in chosen
        if not (found := verify.replay(record, home, None, Progress.silent())).passed
    }
    assert wrong == {}
