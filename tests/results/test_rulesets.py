"""Results of published and of searched hyper-parameters are kept apart: pairs, ranks, tables, ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import records as factory

from kdbench.api import results as api
from kdbench.base.errors import UserError
from kdbench.index.store import Store
from kdbench.leaderboard.model import source
from kdbench.leaderboard.model.board import board
from kdbench.leaderboard.model.catalogue import Catalogue
from kdbench.records.files import RecordError, parse
from kdbench.results import cells, compare, matched
from kdbench.specs.registry import method
from kdbench.terminal import tables


def tuned(name: str, seed: int, score: float, trials: int = 8, **changes: Any) -> dict[str, Any]:
    search = factory.make_search(trials, **changes)
    own = {"models__teachers": []} if name == "plain" else {}
    return factory.make_record(
        method__name=name, seed=seed, score=score, search=search, method__params_source="tuned", protocol__lr=0.1, **own
    )


def shared(raw: dict[str, Any]) -> dict[str, Any]:
    """The record with the protocol that its ruleset's methods share: what a search set stands beside it."""
    raw["provenance"]["config_resolved"]["protocol"]["lr"] = 0.05
    raw["spec_hash"] = factory.spec_hash(raw["provenance"]["config_resolved"])
    return raw


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """plain, kd and x as published; plain and kd of eight trials, kd of sixteen."""
    factory.write_small_board(tmp_path)
    for seed in range(3):
        factory.write_records(
            tmp_path,
            shared(tuned("plain", seed, 80.0 + seed)),
            shared(tuned("kd", seed, 84.0 + seed, values={"train.optimizer.lr": 0.1, "method.weight": 0.5})),
            shared(tuned("kd", seed, 90.0 + seed, trials=16)),
        )
    return tmp_path


def test_a_difference_is_taken_within_a_ruleset(folder: Path) -> None:
    with Store.memory(folder) as store:
        rows = {(row.method, row.ruleset): row for row in cells.rows(store) if row.score is not None}
    assert len(rows) == 6
    gains = {key: None if row.to_plain is None else row.to_plain.mean for key, row in rows.items()}
    assert gains["kd", "tuned-8"] == pytest.approx(4.0)
    assert gains["kd", "published"] == pytest.approx(2.0)
    assert gains["kd", "tuned-16"] is None
    assert all(row.current for row in rows.values())
    assert any("no Δ" in word for word in rows["kd", "tuned-16"].remarks) is False  # nobody ran plain there
    searched = "searched: method.weight=0.5, train.optimizer.lr=0.1"
    assert searched in rows["kd", "tuned-8"].remarks
    assert rows["kd", "tuned-8"].totals.search_h == 0.5
    assert rows["kd", "tuned-8"].totals.recipe_h == rows["kd", "published"].totals.recipe_h
    shown = [str(one.title) for one in tables.results(list(rows.values()))]
    assert [title.split(":")[0].split(", ")[1:] for title in shown] == [[], ["tuned-16"], ["tuned-8"]]
    assert tables.as_json(rows["kd", "tuned-8"])["ruleset"] == "tuned-8"


def test_a_search_of_more_seeds_a_trial_is_another_ruleset(folder: Path) -> None:
    for seed in range(3):
        factory.write_records(folder, shared(tuned("kd", seed, 95.0 + seed, seeds=[1000, 1001, 1002])))
    with Store.memory(folder) as store:
        found = {row.ruleset: row for row in cells.rows(store) if row.method == "kd"}
    assert found["tuned-8"].to_plain is not None
    assert found["tuned-8"].to_plain.mean == pytest.approx(4.0)
    assert found["tuned-8x3"].to_plain is None  # plain had a third of its budget


def test_results_of_a_ruleset_alone(folder: Path, tmp_path: Path) -> None:
    with Store.memory(folder) as store:
        there = {row.ruleset for row in cells.rows(store)}
        by = {
            name: {row.ruleset for row in cells.rows(store, ruleset=name)} for name in ("published", "tuned", "tuned-8")
        }
        ordered = cells.in_order(cells.rows(store), "score")
        with pytest.raises(UserError, match=r"no results of ruleset tuned-9; there are published, tuned-16, tuned-8"):
            cells.rows(store, ruleset="tuned-9")
        with pytest.raises(UserError, match="no ruleset 'best'; published, tuned, or"):
            cells.rows(store, ruleset="best")
        _, table = store.export(tmp_path / "out", ruleset=["tuned-8"])
    assert there == {"published", "tuned-8", "tuned-16"}
    assert by == {"published": {"published"}, "tuned": {"tuned-8", "tuned-16"}, "tuned-8": {"tuned-8"}}
    heads = [(row.task, row.ruleset) for row in ordered]
    assert heads == sorted(heads)  # no ruleset's rows among another's
    assert len(table.read_text().splitlines()) == 1 + 6


def test_python_tells_the_results_of_a_ruleset(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "PUBLISHED", folder)
    found = api.results(ruleset="tuned-8", published=True)
    assert {run["ruleset"] for run in found.runs} == {cell["ruleset"] for cell in found.cells} == {"tuned-8"}
    assert len(found.runs) == 6


def test_compare_pairs_within_a_ruleset(folder: Path) -> None:
    with Store.memory(folder) as store:
        found = compare.pairings(cells.rows(store), "plain", "kd")
    assert {(pair.first.ruleset, pair.second.ruleset) for pair in found} == {
        ("published", "published"), ("tuned-8", "tuned-8"),
    }  # fmt: skip
    assert "digits/few-shot, cpu/fp32/x1, tuned-8" in next(p.words for p in found if p.first.ruleset == "tuned-8")


def test_the_board_ranks_each_ruleset_alone(folder: Path) -> None:
    with Store.memory(folder) as store:
        made = board(source.read(store), Catalogue({"kd": method("kd"), "plain": method("plain")}, {}))
    by = {one.ruleset: one for one in made.task_boards}
    assert {name: sorted({row.method for row in one.comparable}) for name, one in by.items()} == {
        "published": ["kd", "plain"], "tuned-8": ["kd", "plain"], "tuned-16": ["kd"],
    }  # fmt: skip
    assert by["tuned-8"].place == "cpu/fp32/x1, tuned-8"
    assert [suite.ruleset for suite in made.suites] == ["published", "tuned-16", "tuned-8"]
    assert by["tuned-8"].entry("kd").vs_plain.mean == pytest.approx(4.0)


def test_the_cost_that_a_matched_run_takes_is_that_of_published_values(tmp_path: Path) -> None:
    factory.write_records(tmp_path, *(shared(tuned("kd", seed, 84.0 + seed)) for seed in range(2)))
    with Store.memory(tmp_path) as store, pytest.raises(UserError, match="needs the measured cost of kd"):
        matched.match_in(store, method("plain@kd"), "digits/few-shot", 1, "cpu/fp32/x1")


def test_the_search_is_a_line_of_the_ledger(folder: Path) -> None:
    with Store.memory(folder) as store:
        results = {(r.cell["method"], r.cell["ruleset"]): r for r in source.read(store).results}
    lines = [(line.name, line.ledger, line.hours) for line in results["kd", "tuned-8"].stages]
    assert lines[0] == ("search", "hparam_search", 0.5)
    assert [line.ledger for line in results["kd", "published"].stages] == ["distill"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"compute_match": {"method": "kd", "ratio": 2.0, "spec_hash": "a" * 64}}, "of published values alone"),
        ({"search": None}, "does not agree with searched in provenance.config_resolved"),
    ],
)
def test_a_record_that_contradicts_its_search_is_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(RecordError, match=line):
        parse({**tuned("kd", 0, 84.0), **changes})
