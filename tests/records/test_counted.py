"""Which builds of a measurement count, by the protocol that it followed: in costs, and in the index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import records as factory

from kdbench.index.store import Store
from kdbench.records import counted, files
from kdbench.records.files import Record
from kdbench.results.costs import totals
from kdbench.stats.step_ratio import estimate_ratio

LATER = [[[2.0, 4.0], [2.0, 4.2]], [[2.0, 4.4], [2.0, 4.0]], [[2.0, 4.1], [2.0, 4.3]]]
FIRST = [[1.0, 1.0], [1.0, 1.0]]


def measured(version: int, builds: list[Any], **more: Any) -> Record:
    """A record with these builds, whose own figures count all of them, as its protocol had it."""
    found = estimate_ratio(builds)
    raw = factory.make_record(method__name="kd", **more)
    raw["overhead"] |= {
        "protocol_version": version, "builds": builds, "step_ratio": found.ratio, "ci95": [found.lo, found.hi],
        "step_ms": found.method_ms, "plain_step_ms": found.plain_ms,
    }  # fmt: skip
    return files.parse(raw)


def test_the_first_build_of_protocol_2_counts_nowhere_but_in_the_records_own_figures(tmp_path: Path) -> None:
    old, new = measured(2, [FIRST, *LATER], seed=0), measured(3, LATER, seed=1)
    assert old.measured is not None
    assert new.measured is not None
    assert old.measured.step_ratio < 0.9 * new.measured.step_ratio
    assert counted.estimate(old.measured) == counted.estimate(new.measured) == estimate_ratio(LATER)
    assert totals(old) == totals(new)
    assert totals(counted.as_stated(old)).recipe_h < totals(old).recipe_h
    for record in (old, new):
        files.dump(record, tmp_path)
    with Store.memory(tmp_path) as store:
        rows = [store.overheads([record.run_id])[record.run_id] for record in (old, new)]
    for column in ("step_ratio", "lo", "hi", "step_ms", "plain_step_ms", "throughput_samples_s"):
        assert rows[0][column] == rows[1][column]
    assert rows[0]["step_ratio"] == pytest.approx(estimate_ratio(LATER).ratio)


def test_of_two_builds_both_count() -> None:
    record = measured(2, LATER[:2])
    assert record.measured is not None
    assert counted.estimate(record.measured) == estimate_ratio(LATER[:2])


def test_each_phase_of_protocol_2_lacks_its_first_build() -> None:
    raw = factory.make_record()
    phase = {"steps": 10, "builds": [FIRST, *LATER], "step_ratio": 2.0, "ci95": [1.9, 2.1]}
    phases = [{"name": "warm", **phase}, {"name": "main", **phase}]
    raw["overhead"] |= {"protocol_version": 2, "builds": [], "phases": phases}
    block = files.parse(raw).measured
    assert block is not None
    assert counted.step_ms(block) == dict.fromkeys(("warm", "main"), estimate_ratio(LATER).method_ms)
    assert counted.estimate(block).builds == 3
