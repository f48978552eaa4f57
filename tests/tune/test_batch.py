"""``kdbench tune --all``: what is planned, what is there already, and that one failure ends no other search."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from entries import RATE_FOUND, an_entry

from kdbench import cli
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.specs import tuned
from kdbench.sweep.devices import Where
from kdbench.sweep.known import Known
from kdbench.sweep.plan import Asked
from kdbench.terminal.tables import console
from kdbench.tune import report
from kdbench.tune.batch import Batch
from kdbench.tune.search import Search, Trial

ANGLE = "digits/angle"


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    """Of methods on a regression task; fitnet is searched already."""
    tuned.keep(an_entry("fitnet", ANGLE, RATE_FOUND, (9.0, 5.0)), Home(tmp_path))
    asked = Asked((), (), Home(tmp_path))
    methods = ["plain", "fitnet", "pskd", "plain@fitnet", "at"]
    place = Where(("cpu",), lambda found: True, 1)
    return Batch.of(
        methods, [ANGLE], lambda method, task: Search(asked, method, task, 2, "qmc", place, say=lambda line: None)
    )


def test_a_plan_leaves_out_what_does_not_apply_and_what_is_there(batch: Batch) -> None:
    assert [one.method for one in batch.searches] == ["plain", "at"]
    assert batch.kept == [("fitnet", ANGLE)]
    assert batch.left == {
        ("pskd", ANGLE): "it runs on classification tasks, this one is a regression task",
        ("plain@fitnet", ANGLE): "plain@fitnet: it takes its length from results as published; nothing is searched",
    }


def test_the_plan_says_hours_or_that_nothing_tells(batch: Batch, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    console().print(*report.batch(batch))
    said = " ".join(capsys.readouterr().out.split())
    assert "2 searches: 2 of unknown length; 1 are there already, 2 left out" in said
    monkeypatch.setattr(Search, "hours", lambda self, known=None: 1.5)
    batch.__dict__["known"] = Known(hours={("plain", ANGLE): 0.5})
    console().print(*report.batch(batch))
    said = " ".join(capsys.readouterr().out.split())
    assert "2 searches: about 3.0 h here; 1 are there already" in said
    assert "~1.5" in said  # of at, which has not run there
    assert "~ goes by other tasks" in said


def test_a_search_that_gives_nothing_ends_no_other(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def run(search: Search) -> None:
        tried.append(search.method)
        if search.method == "plain":
            raise UserError("none of 2 trials gave a score; not finite by step 3")

    monkeypatch.setattr(Search, "run", run)
    said: list[str] = []
    for search in batch.searches:
        search.say = said.append
    batch.run()
    assert tried == ["plain", "at"]
    assert said[0] == f"search 1/2, plain on {ANGLE}: ETA of all -:--:--"
    assert said[1].startswith(f"search 2/2, at on {ANGLE}: ETA of all 0:00:0")
    assert batch.left["plain", ANGLE].startswith("none of 2 trials")


def test_other_settings_are_of_unknown_length(batch: Batch) -> None:
    known, (plain, _) = Known(hours={("plain", ANGLE): 0.5}), batch.searches
    assert plain.hours(known) == 1.0
    plain.asked = replace(plain.asked, overrides=("engine.compile=true",))
    assert plain.hours(known) == 1.0
    plain.asked = replace(plain.asked, overrides=("train.epochs=3",))
    assert plain.hours(known) is None


def test_only_searches_that_were_kept_are_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def run(search: Search) -> None:
        values = {one.key: one.given for one in search.dimensions()}
        search.done.append(Trial(values, {}, {1000: 5.0}, ("0" * 32,), 0.1))
        if search.method == "plain":
            raise UserError("the disk is full")

    monkeypatch.setattr(Search, "run", run)
    words = ["kdbench", "tune", "-m", "plain,at", "-t", ANGLE, "--trials", "1", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr()
    assert stop.value.code == 1
    assert f"at on {ANGLE}, validation rows" in said.out
    assert f"plain on {ANGLE}, validation rows" not in said.out
    assert "the disk is full" in said.err
