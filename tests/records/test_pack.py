"""Records in shards: the same rows, hashes and files as records in files; what is wrong with a shard is a line."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import records as factory

from kdbench.base.errors import UserError
from kdbench.index.store import Store
from kdbench.leaderboard.output.pages import copy_records
from kdbench.records import recorded, shards
from kdbench.records import submit as of_submissions
from kdbench.records.files import SIDE_FOLDER, load, parse, side_of, to_json, withdraw
from kdbench.records.folder import listed, one_of, records_of
from kdbench.records.pack import Packed, pack, unpack
from kdbench.records.validate import check_folder

TABLES = (
    "runs",
    "v_runs",
    "v_cell",
    "v_delta",
    "metrics",
    "stages",
    "overhead",
    "verifications",
    "withdrawn",
    "sources",
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two tasks in the published layout; one record is withdrawn, one has examples."""
    folder = tmp_path / "results"
    for task in ("digits/few-shot", "digits/mini"):
        for method, seed in (("plain", 0), ("plain", 1), ("kd", 0), ("kd", 1)):
            own = {"models__teachers": []} if method == "plain" else {}
            raw = factory.make_record(method__name=method, seed=seed, score=70.0 + seed, task__name=task, **own)
            factory.write_records((folder / parse(raw).published_path).parent, raw)
    first, *_ = (path for path in sorted(folder.rglob("*.json")) if load(path).method_name == "kd")
    withdraw(first, "wrong split")
    (first.parent / "examples").mkdir()
    (first.parent / "examples" / f"{first.stem}.zip").write_bytes(b"x")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder: Path) -> dict[str, list[Any]]:
    with Store.memory(folder) as store:
        assert store.report.bad == ()
        drop = {"sources": "EXCLUDE (mtime_ns)"}
        return {name: store.query(f"SELECT * {drop.get(name, '')} FROM {name} ORDER BY ALL") for name in TABLES}


def test_both_forms_are_equal_and_turn_into_one_another(results: Path, tmp_path: Path) -> None:
    before, files, problems = rows(results), tree(results), check_folder(results)
    specs = {load(path).spec_hash for path in records_of(results)}
    known = [record.run_id for record in recorded.of(results, *specs)]
    done = pack(results, 0)
    assert (done.records, done.all) == (8, 8)
    assert [shard.relative_to(results).as_posix() for shard in done.shards] == [
        "digits__few-shot@v1/records-0001.parquet", "digits__mini@v1/records-0001.parquet",
    ]  # fmt: skip
    assert {path.suffix for path in results.rglob("*") if path.is_file() and path.parent.name != SIDE_FOLDER} == {
        ".parquet", ".zip",
    }  # fmt: skip
    assert rows(results) == before
    assert len(check_folder(results)) == len(problems)
    assert [record.run_id for record in recorded.of(results, *specs)] == known
    paths = records_of(results)
    assert {path.stem for path in paths if (side := side_of(path)) and side.withdrawn} == {
        row["run_id"] for row in before["withdrawn"]
    }
    assert {f"{load(path).published_path}": to_json(load(path)).encode() for path in paths}.items() <= files.items()
    assert unpack(results) == 8
    assert tree(results) == files


def test_the_board_has_packed_records_as_they_were_submitted(results: Path, tmp_path: Path) -> None:
    made: Any = SimpleNamespace(source=SimpleNamespace(runs={row["run_id"]: row for row in rows(results)["runs"]}))
    copy_records(results, tmp_path / "files", made)
    pack(results, 0)
    copy_records(results, tmp_path / "packed", made)
    assert len(tree(tmp_path / "files")) == 8
    assert tree(tmp_path / "files") == tree(tmp_path / "packed")


def test_new_records_make_a_new_shard_and_a_killed_call_is_gone_on_with(results: Path) -> None:
    left = {path: path.read_text() for path in records_of(results)}
    first = pack(results, 0).shards[0].read_bytes()
    some = next(iter(left))
    some.parent.mkdir(exist_ok=True)
    some.write_text(left[some])  # what was packed but not removed
    before = rows(results)
    raw = factory.make_record(seed=7, task__name="digits/few-shot")
    factory.write_records((results / parse(raw).published_path).parent, raw)
    done = pack(results, 0)
    assert [shard.name for shard in done.shards] == ["records-0002.parquet"]
    assert (results / "digits__few-shot@v1" / "records-0001.parquet").read_bytes() == first
    assert not some.exists()
    assert len(rows(results)["runs"]) == len(before["runs"]) + 1


def test_few_records_stay_as_they_are_and_wrong_ones_are_never_packed(results: Path) -> None:
    files = tree(results)
    assert pack(results, 9) == Packed(0, (), 8)
    assert tree(results) == files
    some = records_of(results)[0]
    some.write_text(some.read_text().replace('"seed": ', '"sead": '))
    with pytest.raises(UserError, match=r"sead: is not a field .*: nothing was packed; 'kdbench records validate"):
        pack(results, 0)
    some.write_bytes(files[some.relative_to(results).as_posix()])
    some.rename(some.parents[1] / some.name)
    with pytest.raises(UserError, match=r"does not lie where it is published, at .*: nothing was packed"):
        pack(results, 0)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda raw: raw[: len(raw) // 2], "is no whole Parquet file"),
        (lambda raw: b"", "is no whole Parquet file"),
        (lambda raw: raw[:200] + bytes(60) + raw[260:], "(is no whole Parquet file|is not that of its hash)"),
    ],
)
def test_a_broken_shard_is_one_line_and_keeps_no_other_out(results: Path, spoil: Any, line: str) -> None:
    broken, _ = pack(results, 0).shards
    broken.write_bytes(spoil(broken.read_bytes()))
    with Store.memory(results) as store:
        (problem,) = store.report.bad
        assert len(store.query("SELECT * FROM runs")) == 4
    assert str(problem).startswith(f"{broken}: ")
    assert problem == next(one for one in check_folder(results) if one.file == str(broken))
    assert len([one for one in check_folder(results) if one.file == str(broken)]) == 1
    assert re.search(line, problem.message)
    with pytest.raises(UserError, match=line):
        shards.text(broken / "x.json")


def test_a_record_of_another_content_beside_its_shard_is_one_line(results: Path) -> None:
    paths = {path.stem: path for path in records_of(results)}
    texts = {name: path.read_text() for name, path in paths.items()}
    pack(results, 0)
    name, path = next(iter(paths.items()))
    path.parent.mkdir(exist_ok=True)
    path.write_text(texts[name])
    found = listed(results)
    assert found.bad == ()
    assert len([file for file in found.files if file.kind == "run"]) == 8
    assert of_submissions.bundle([path], results).known == 1
    path.write_text(texts[name].replace('"seed": 0', '"seed": 5').replace('"seed": 1', '"seed": 5'))
    with Store.memory(results) as store:
        (problem,) = store.report.bad
        assert len(store.query("SELECT * FROM runs")) == 8
    assert "differs from" in str(problem)
    assert "records-0001.parquet" in str(problem)
    assert any("differs from" in str(one) for one in check_folder(results))


def test_a_packed_record_goes_by_a_path_and_is_taken_back_by_its_run_id(results: Path) -> None:
    shard = pack(results, 0).shards[0]
    row = shards.rows(shard)[0]
    path = shard / f"{row.run_id}.json"
    record = load(path)
    assert record.run_id == row.run_id
    if side_of(path) is None:
        assert withdraw(path, "x") == shard.parent / SIDE_FOLDER / path.name
    with pytest.raises(UserError, match="holds no record"):
        load(shard / f"{'0' * 32}.json")
    assert one_of(row.run_id, results.parent / "no home", results) == one_of(str(path)) == path
    with pytest.raises(UserError, match="no such file"):
        one_of(str(shard / f"{'0' * 32}.json"), results)
