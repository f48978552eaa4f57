"""``records ingest FOLDER``: what is taken in stays, whatever becomes of the folder."""

from __future__ import annotations

import json
import shutil

import pytest

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.index.store import Store
from kdbench.records.files import SIDE_FOLDER, SideFile, dump, dump_side, load_side, parse
from kdbench.records.intake import take_in
from kdbench.records.schema import Verification, Withdrawn

WHEN = "2026-01-02T03:04:05Z"


def verified(level: int) -> Verification:
    return Verification(level=level, by="someone", date=WHEN, verdict="passed")


def seeds(home: Home) -> list[int]:
    with Store.memory(home.records) as store:
        return sorted(row["seed"] for row in store.runs())


@pytest.fixture
def homes(tmp_path, make_record):
    """Two homes with seed 1 in common."""
    here, there = Home(tmp_path / "a"), Home(tmp_path / "b")
    shared = parse(make_record(seed=1))
    for home, seed in ((here, 0), (there, 2)):
        dump(shared, home.records)
        dump(parse(make_record(seed=seed)), home.records / "deeper")
    return here, there, shared


def test_records_of_another_home_stay_when_it_goes(homes):
    here, there, shared = homes
    dump_side(SideFile(run_id=shared.run_id, verifications=(verified(1),)), there.records / SIDE_FOLDER)
    taken = take_in(there.records, here)
    assert (taken.copied, taken.bad) == (1, ())
    shutil.rmtree(there.root)
    assert seeds(here) == [0, 1, 2]
    assert load_side(here.records / SIDE_FOLDER / f"{shared.run_id}.json").verifications == (verified(1),)


def test_what_both_learnt_of_a_record_is_kept(homes):
    here, there, shared = homes
    mine = SideFile(run_id=shared.run_id, verifications=(verified(1), verified(2)))
    theirs = SideFile(
        run_id=shared.run_id, verifications=(verified(1), verified(3)), withdrawn=Withdrawn(date=WHEN, reason="x")
    )
    dump_side(mine, here.records / SIDE_FOLDER)
    dump_side(theirs, there.records / SIDE_FOLDER)
    for _ in range(2):
        assert take_in(there.records, here).bad == ()
        both = load_side(here.records / SIDE_FOLDER / f"{shared.run_id}.json")
        assert [item.level for item in both.verifications] == [1, 2, 3]
        assert both.withdrawn is not None


def test_a_record_that_is_otherwise_here_stays_and_is_named(homes):
    here, there, shared = homes
    path = there.records / f"{shared.run_id}.json"
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 4'))
    (there.records / "notes.json").write_text("{}")
    taken = take_in(there.records, here)
    assert taken.copied == 1
    assert ["differs from" in str(p) for p in taken.bad] == [True, False]
    assert json.loads((here.records / path.name).read_text())["seed"] == 1


def test_one_record_or_none(homes, tmp_path):
    here, there, _ = homes
    (one,) = (there.records / "deeper").glob("*.json")
    assert take_in(one, here).copied == 1
    assert take_in(here.records, here).copied == 0
    with pytest.raises(UserError, match="does not exist"):
        take_in(tmp_path / "nothing", here)
