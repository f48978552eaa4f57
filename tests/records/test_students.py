"""Weights of students beside the published records: added from a home, found by a record, on its page."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import records as factory
import site_samples as samples

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.records import files, students

WEIGHTS = b"weights of a student"
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A record that names the weights of a home's run, which is a repeat of another id; and one without a result."""
    results = tmp_path / "board" / "results"
    factory.write_records(results, factory.make_record(deploy__export_sha256=DIGEST), factory.make_record(status="oom"))
    home = Home(tmp_path / "home")
    home.students.mkdir(parents=True)
    (home.students / "a.safetensors").write_bytes(WEIGHTS)
    (home.students / "b.safetensors").write_bytes(b"of a run that nobody published")
    return results


def test_a_homes_students_that_records_name_are_added_once_and_found(published: Path, tmp_path: Path) -> None:
    home, place = Home(tmp_path / "home"), published.parent / "students" / f"{DIGEST}.safetensors"
    made = {one.status: one for one in map(files.load, published.glob("*.json"))}
    with pytest.raises(UserError, match=r"the weights of \w+ are not in .*students; name a file"):
        students.of(made["ok"], published)
    assert students.publish(home, published) == [place]
    assert students.publish(home, published) == []
    assert place.read_bytes() == WEIGHTS
    assert students.of(made["ok"], published) == place
    with pytest.raises(UserError):
        students.of(made["oom"], published)
    place.write_bytes(b"something else")
    assert students.find(DIGEST, published) is None


def test_large_students_stay_at_home(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(students, "LARGEST", len(WEIGHTS) - 1)
    assert students.publish(Home(tmp_path / "home"), published) == []


def test_the_page_of_a_run_links_to_its_students_weights(tmp_path: Path) -> None:
    made = samples.golden()
    made[0]["deploy"]["export_sha256"] = DIGEST
    place = tmp_path / "students"
    place.mkdir()
    (place / f"{DIGEST}.safetensors").write_bytes(WEIGHTS)
    (place / f"{'5' * 64}.safetensors").write_bytes(b"not what the other records name")
    site = samples.make_site(tmp_path, made)
    link = f"../data/students/{DIGEST}.safetensors"
    for raw, linked in ((made[0], True), (made[1], False)):
        page = site.page(f"runs/{raw['run_id']}.html")
        links = [a.attributes["href"] for a in page.all("a") if "students" in a.attributes["href"]]
        assert links == [link] * linked
        assert ("--rescore published" in page.text) == linked
    assert [path.name for path in (site.out / "data" / "students").iterdir()] == [f"{DIGEST}.safetensors"]
    assert f"students/{DIGEST}" in (site.out / "data" / "SHA256SUMS").read_text()
