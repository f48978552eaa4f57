"""The tuned entry: what is kept of a search, where it lies, and what of it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from entries import RATE_FOUND, an_entry

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.specs import tuned
from kdbench.specs.config import run_config

TASK = "digits/few-shot"


def test_an_entry_is_read_as_it_was_kept(tmp_path: Path) -> None:
    entry = an_entry("kd", TASK, RATE_FOUND)
    path = tuned.keep(entry, Home(tmp_path))
    assert path == tmp_path / "tuned" / "digits__few-shot" / "kd.tuned-2.json"
    assert tuned.read(path) == entry
    assert path in tuned.files(Home(tmp_path))


def test_searches_that_are_not_the_same_lie_beside_one_another(tmp_path: Path) -> None:
    home = Home(tmp_path)
    kept = {
        tuned.keep(an_entry("kd", TASK, RATE_FOUND, scores, **changes), home)
        for scores, changes in [
            ((80.0, 85.0), {}),
            ((80.0, 85.0, 70.0), {}),
            ((80.0, 85.0), {"sampler": "tpe"}),
            ((80.0, 85.0), {"smoke": True}),
            ((80.0, 85.0), {"overrides": ("train.epochs=3",)}),
        ]
    }
    assert len(kept) == 5
    assert tuned.keep(an_entry("kd", TASK, RATE_FOUND, overrides=("engine.fused=true",)), home) in kept


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda raw: raw.update(best=0), "best is 0, which is not the first trial of the best score"),
        (lambda raw: raw["trials"][1].update(score=99.0), r"trials\.1\.score is 99.0, its seeds give 85.0"),
        (lambda raw: raw["values"].update({"train.optimizer.lr": 0.4}), "values are not those of trial 1"),
        (lambda raw: raw.update(trials=[]), "trials: "),
        (lambda raw: raw.update(note="x"), "unknown key 'note'"),
    ],
)
def test_an_edited_entry_is_refused_in_one_line(tmp_path: Path, change, line: str) -> None:
    path = tuned.keep(an_entry("kd", TASK, RATE_FOUND), Home(tmp_path))
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(UserError, match=line) as error:
        tuned.read(path)
    assert "\n" not in str(error.value)


def test_what_has_changed_since_is_named() -> None:
    entry, config = an_entry("kd", TASK, RATE_FOUND), run_config("kd", TASK)
    assert entry.changes(config) == []
    older = entry.model_copy(
        update={"cards": {"kd": "0.1.0"}, "engine_version": 0, "task": entry.task.model_copy(update={"version": 9})}
    )
    assert older.changes(config) == [
        f"task {TASK} was version 9 and is {config.task.version}",
        f"card kd was version 0.1.0 and is {config.method.ref.card.version}",
        f"engine was version 0 and is {entry.engine_version}",
    ]
