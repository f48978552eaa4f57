"""Bundling results for a pull request, and what such a request may change."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import records as factory
from typer.testing import CliRunner

from kdbench.base.errors import UserError
from kdbench.base.progress import Progress
from kdbench.cli import app
from kdbench.records import files as records
from kdbench.records.submit import bundle, changes
from kdbench.runs.verify import accept

SHA = "b" * 40


def sound(**changes: object) -> dict[str, object]:
    """A record of a clean commit that the validator passes."""
    raw = factory.make_record(**changes)
    spec = raw["provenance"]["config_resolved"]
    raw["spec_hash"] = records.spec_hash(spec)
    return raw


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with one record for the board and three that have no place there."""
    folder = tmp_path / "home" / "records"
    smoke, dirty = sound(smoke=True), sound(provenance__dirty=True)
    factory.write_records(folder, sound(), smoke, dirty)
    (folder / f"{'f' * 32}.json").write_text('{"cut": ')
    return folder


def test_a_bundle_has_the_published_layout_and_leaves_out_what_has_no_place(made: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    done = bundle([made], results)
    assert [path.parts[:-1] for path in done.added] == [("digits__few-shot@v1", "kd")]
    assert (results / done.added[0]).read_bytes() == (made / done.added[0].name).read_bytes()
    reasons = sorted(reason for _, reason in done.left_out)
    assert len(reasons) == 3
    assert any("smoke" in reason for reason in reasons)
    assert any("not committed" in reason for reason in reasons)
    assert [problem for problem in done.problems if problem.level == "error"] == []


def test_a_second_bundle_adds_nothing(made: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    bundle([made], results)
    again = bundle([made], results)
    assert (again.added, again.known) == ((), 1)


def test_the_validators_words_on_new_records_come_with_the_bundle(made: Path, tmp_path: Path) -> None:
    bad = sound()
    bad["overhead"]["step_ratio"] *= 1.5
    factory.write_records(made, bad)
    done = bundle([made], tmp_path / "results")
    assert [problem.field for problem in done.problems if problem.level == "error"] == ["overhead.step_ratio"]


def test_no_record_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no record in"):
        bundle([tmp_path], tmp_path / "results")
    with pytest.raises(UserError, match="does not exist"):
        bundle([tmp_path / "nowhere"], tmp_path / "results")


def test_the_command_says_what_it_did(made: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["submit", str(made), "--to", str(tmp_path / "results")])
    assert told.exit_code == 0, told.output
    assert "1 records added" in told.output
    assert told.output.count("left out: ") == 3


def git(where: Path, *words: str) -> None:
    name = ["-c", "user.name=t", "-c", "user.email=t@t.invalid", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(where), *name, *words], check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A checkout with one published record on main, and a branch."""
    top = tmp_path / "clone"
    results = top / "leaderboard" / "results"
    factory.write_records(tmp_path / "first", sound())
    bundle([tmp_path / "first"], results)
    git(tmp_path, "init", "-q", "-b", "main", str(top))
    git(top, "add", ".")
    git(top, "commit", "-qm", "one record")
    git(top, "checkout", "-qb", "mine")
    return top


def test_a_request_that_adds_records_alone_is_fine(clone: Path, tmp_path: Path) -> None:
    factory.write_records(tmp_path / "second", sound(seed=1))
    bundle([tmp_path / "second"], clone / "leaderboard" / "results")
    git(clone, "add", ".")
    git(clone, "commit", "-qm", "another")
    assert list(changes(clone / "leaderboard" / "results", "main")) == []


def test_a_request_may_not_touch_anything_else(clone: Path) -> None:
    results = clone / "leaderboard" / "results"
    published = next(results.rglob("*.json"))
    published.write_text(published.read_text() + "\n")
    (clone / "README.md").write_text("mine")
    side = published.parent / "verifications"
    side.mkdir()
    (side / published.name).write_text("{}")
    git(clone, "add", ".")
    git(clone, "commit", "-qm", "more than records")
    told = {problem.file: str(problem) for problem in changes(results, "main")}
    assert len(told) == 3
    assert "outside the published results" in told["README.md"]
    assert any("was changed" in line for line in told.values())
    assert any("is no record" in line for line in told.values())


def test_an_unknown_branch_is_one_line(clone: Path) -> None:
    with pytest.raises(UserError, match="with nowhere"):
        list(changes(clone / "leaderboard" / "results", "nowhere"))


def test_accept_gives_level_1_once_and_only_to_clean_valid_records(tmp_path: Path) -> None:
    bad = sound(seed=2)
    bad["overhead"]["step_ratio"] *= 1.5
    good = sound()
    factory.write_records(tmp_path, good, bad, sound(seed=1, provenance__dirty=True))
    accepted, problems = accept(tmp_path, "maintainer", Progress.silent())
    assert accepted == 1
    assert sorted(problem.field for problem in problems) == ["overhead.step_ratio", "provenance"]
    side = json.loads((tmp_path / "verifications" / f"{good['run_id']}.json").read_text())
    assert [(v["level"], v["by"], v["verdict"]) for v in side["verifications"]] == [(1, "maintainer", "passed")]
    assert accept(tmp_path, "maintainer", Progress.silent())[0] == 0
