"""Terminal and board print one result: scores, pairs, costs and what keeps a pair apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import records as factory

from kdbench.index.store import Store
from kdbench.leaderboard.model import source
from kdbench.leaderboard.model.catalogue import Catalogue
from kdbench.leaderboard.model.entries import entries, tasks
from kdbench.results import cells

pytestmark = pytest.mark.seam


def test_board_and_terminal_say_the_same_of_every_cell(tmp_path: Path) -> None:
    factory.write_records(
        factory.write_small_board(tmp_path),
        factory.make_record(engine_version=2, score=50.0),
        factory.make_record(method__name="z", seed=7, score=60.0),
        factory.make_record(method__name="x", custom=True, score=3.0, overhead={"mode": "off"}),
    )
    with Store.memory(tmp_path) as store:
        read = source.read(store)
        rows = {row.run_ids: row for row in cells.rows(store, older=True) if row.score}
    made = entries(read, Catalogue(), tasks(read, Catalogue()))
    assert len(made) == len(rows) == 6
    for entry in made:
        row = rows[tuple(entry.result.runs.values())]
        ours = (row.score, row.to_baseline, row.to_plain, row.totals, row.cost, row.teacher)
        found, deltas = entry.result, entry.result.deltas
        theirs = (found.stat, deltas[row.baseline], deltas["plain"], found.totals, found.cost, found.teacher)
        assert ours == theirs
        apart = [
            f"no Δ to {name}: {why}" for name, why in entry.result.unpaired.items() if why and name != entry.method
        ]
        assert {remark for remark in row.remarks if remark.startswith("no Δ")} <= {*apart}


@pytest.mark.parametrize(
    ("changed", "why"), [({}, ""), ({"engine_version": 2}, "another engine version"), ({"seed": 9}, "no common seed")]
)
def test_matched_plain_is_compared_only_where_it_can_be(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    matched: dict[str, Any] = {
        "method__name": "plain", "method__variant": "plain@kd", "seed": 0, "models__teachers": [],
        "compute_match": {"method": "kd", "ratio": 2.0, "spec_hash": "a" * 64},
    }  # fmt: skip
    factory.write_records(tmp_path, factory.make_record(seed=0), factory.make_record(**{**matched, **changed}))
    with Store.memory(tmp_path) as store:
        found = {result.cell["method"]: result for result in source.read(store).results}
    assert found["kd"].matched is not None
    assert found["kd"].unpaired["plain@kd"] == why
    assert (found["kd"].to_matched is None) == bool(why)
