"""``kdbench tune --all``: what is planned, what is there already, and that one failure ends no other search."""

from __future__ import annotations

from pathlib import Path

import pytest
from entries import RATE_FOUND, an_entry

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.specs import tuned
from kdbench.sweep.devices import Where
from kdbench.sweep.plan import Asked
from kdbench.terminal.tables import console
from kdbench.tune import report
from kdbench.tune.batch import Batch
from kdbench.tune.search import Search

ANGLE = "digits/angle"


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    """Of methods on a regression task; fitnet is searched already."""
    tuned.keep(an_entry("fitnet", ANGLE, RATE_FOUND, (9.0, 5.0)), Home(tmp_path))
    asked = Asked((), (), Home(tmp_path))
    methods = ["plain", "fitnet", "pskd", "plain@fitnet"]
    place = Where(("cpu",), lambda found: True, 1)
    return Batch.of(asked, methods, [ANGLE], 2, "qmc", place, lambda line: None)


def test_a_plan_leaves_out_what_does_not_apply_and_what_is_there(batch: Batch) -> None:
    assert [one.method for one in batch.searches] == ["plain", "plain@fitnet"]
    assert batch.kept == [("fitnet", ANGLE)]
    assert batch.left == {("pskd", ANGLE): "it runs on classification tasks, this one is a regression task"}


def test_the_plan_says_hours_or_that_nothing_tells(batch: Batch, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    console().print(*report.batch(batch))
    said = " ".join(capsys.readouterr().out.split())
    assert "2 searches: 2 of unknown length; 1 are there already, 1 left out" in said
    monkeypatch.setattr(Search, "hours", lambda self, known=None: 1.5)
    console().print(*report.batch(batch))
    assert "2 searches: about 3.0 h here; 1 are there already" in " ".join(capsys.readouterr().out.split())


def test_a_search_that_gives_nothing_ends_no_other(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def run(search: Search) -> None:
        tried.append(search.method)
        if search.method == "plain":
            raise UserError("none of 2 trials gave a score; not finite by step 3")

    monkeypatch.setattr(Search, "run", run)
    batch.run()
    assert tried == ["plain", "plain@fitnet"]
    assert batch.left["plain", ANGLE].startswith("none of 2 trials")


def test_a_compute_matched_variant_is_no_search(batch: Batch) -> None:
    with pytest.raises(UserError, match="plain@fitnet: it takes its length from results as published"):
        batch.searches[1].run()
