"""The DuckDB index: ingest, views, bad files, kill -9, locks, rebuild, hostile text, export."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
import records as factory

from kdbench.base.errors import UserError
from kdbench.index.csv import to_csv
from kdbench.index.file import StoreOld
from kdbench.index.store import Store
from kdbench.records import files as records

TABLES = ["runs", "metrics", "overhead", "stages", "deploy", "environment", "verifications", "withdrawn", "sources"]
VIEWS = ["v_runs", "v_cell", "v_delta", "v_coverage", "methods", "tasks", "curve", "blocks"]


make: Callable[..., dict[str, Any]] = factory.make_record
PLAIN = {"method__name": "plain", "models__teachers": []}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return factory.write_small_board(tmp_path / "records")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "index.duckdb"


def _side(folder: Path, run_id: str, level: int = 3, verdict: str = "passed", withdrawn: bool = False) -> Path:
    raw = {
        "schema_version": 1, "run_id": run_id,
        "verifications": [
            {"level": level, "by": "maintainers", "date": "2026-02-01T00:00:00Z", "verdict": verdict, "delta": -0.25}
        ],
        "withdrawn": {"date": "2026-02-02T00:00:00Z", "reason": "wrong split"} if withdrawn else None,
    }  # fmt: skip
    side = records.SideFile.model_validate_json(json.dumps(raw))
    return records.dump_side(side, folder / records.SIDE_FOLDER)


def _everything(store: Store, names: list[str]) -> dict[str, list[str]]:
    return {name: sorted(repr(row) for row in store.query(f"SELECT * FROM {name}")) for name in names}


def test_ingest_once(folder: Path, index: Path) -> None:
    with Store(index) as store:
        report = store.ingest(folder)
        assert (report.new, report.unchanged, report.bad) == (10, 0, ())
        assert store.report == report
    with Store(index) as store:
        again = store.ingest(folder)
        assert (again.new, again.unchanged) == (0, 10)
        one = next(folder.glob("*.json"))
        assert store.ingest(one).unchanged == 1
        assert len(store.runs()) == 10
        assert store.record(one.stem) == json.loads(one.read_text())
        assert store.record("0" * 32) is None


def test_touched_files_are_unchanged(folder: Path, index: Path) -> None:
    with Store(index) as store:
        store.ingest(folder)
        for path in folder.glob("*.json"):
            os.utime(path, (1, 1))
        assert store.ingest(folder).unchanged == 10
        mtimes = store.query("SELECT DISTINCT mtime_ns FROM sources")
        assert mtimes == [{"mtime_ns": 1_000_000_000}]


def test_columns_of_a_run(folder: Path) -> None:
    store = Store.memory(folder)
    run = store.runs(method="x", seed=1)[0]
    expected = {
        "task": "digits/few-shot", "task_version": 1, "score": 75.0, "status": "ok", "teacher": "w8", "device": "cpu",
        "dtype": "fp32", "level": 0, "is_withdrawn": False, "metric": "top1", "higher_is_better": True, "batch": 64,
        "teacher_sha256": "3" * 64, "teacher_metric": 99.2, "error": None, "git_commit": "a" * 40, "dirty": False,
    }  # fmt: skip
    assert {name: run[name] for name in expected} == expected
    assert run["created_at"].isoformat() == "2026-01-02T03:04:05.678000"
    failed = store.runs(status="oom")[0]
    assert (failed["score"], failed["error"]) == (None, "OutOfMemory: no memory left on the device")
    assert len(store.runs(method=["x", "kd"])) == 6
    with pytest.raises(UserError, match=r"no column 'metod' \(did you mean 'method'"):
        store.runs(metod="x")


def test_every_scalar_of_the_overhead_has_a_column(folder: Path) -> None:
    from kdbench.records.schema.overhead import Measured

    store = Store.memory(folder)
    columns = set(store.query("SELECT * FROM overhead LIMIT 1")[0])
    kept_in_json = {"builds", "board", "phases", "ci95", "uncounted_ops", "energy"}
    assert set(Measured.model_fields) - kept_in_json <= columns
    row = store.query("SELECT * FROM overhead o JOIN runs USING (run_id) WHERE method = 'x' AND seed = 0")[0]
    block = (store.record(row["run_id"]) or {})["overhead"]
    assert (row["step_ratio"], row["lo"], row["hi"]) == (block["step_ratio"], *block["ci95"])
    assert row["peak_alloc_mib"] == 54.2
    pairs = store.query("SELECT plain_ms, method_ms FROM blocks WHERE run_id = ? ORDER BY build, i", [row["run_id"]])
    assert [[pair["plain_ms"], pair["method_ms"]] for pair in pairs] == [pair for b in block["builds"] for pair in b]


def test_copied_overhead_gives_no_blocks(tmp_path: Path) -> None:
    first = make(seed=0)
    second = make(seed=1, overhead=first["overhead"])
    factory.write_records(tmp_path, first, second)
    store = Store.memory(tmp_path)
    assert store.query("SELECT DISTINCT run_id FROM blocks") == [{"run_id": first["run_id"]}]
    assert store.cells()[0]["overhead_run_id"] == first["run_id"]


def test_cells(folder: Path) -> None:
    store = Store.memory(folder)
    cells = {cell["method"]: cell for cell in store.cells()}
    assert set(cells) == {"plain", "kd", "x"}
    kd = cells["kd"]
    assert (kd["n"], kd["mean"], kd["sd"], kd["seeds"], kd["scores"]) == (3, 73.0, 2.0, [0, 1, 2], [71.0, 73.0, 75.0])
    assert all(cell["current"] for cell in cells.values())


def test_deltas_are_paired_by_seed(folder: Path) -> None:
    store = Store.memory(folder)
    found = {(d["method"], d["reference"], d["seed"]): d["delta"] for d in store.deltas()}
    assert [found["x", "kd", seed] for seed in range(3)] == [3.0, 2.0, 1.0]
    assert [found["x", "plain", seed] for seed in range(3)] == [4.0, 4.0, 4.0]
    assert [found["kd", "kd", seed] for seed in range(3)] == [0.0, 0.0, 0.0]


def test_gain_of_a_metric_to_be_low(tmp_path: Path) -> None:
    low: dict[str, Any] = {"task__higher_is_better": False}
    factory.write_records(tmp_path, make(score=5.0, **low), make(method__name="x", score=4.0, **low))
    delta = next(d for d in Store.memory(tmp_path).deltas(method="x"))
    assert (delta["delta"], delta["gain"]) == (-1.0, 1.0)


@pytest.mark.parametrize(
    "differs",
    [
        {"task__version": 2}, {"seed": 7}, {"engine_version": 2}, {"smoke": True}, {"device_class": "cpu/fp32/x2"},
        {"models__teachers": [{**make()["models"]["teachers"][0], "weights_sha256": "9" * 64}]},
    ],
    ids=lambda differs: next(iter(differs)),
)  # fmt: skip
def test_what_must_be_equal_for_a_delta(differs: dict[str, Any], tmp_path: Path) -> None:
    factory.write_records(tmp_path, make(), make(method__name="x", **differs))
    assert Store.memory(tmp_path).deltas(method="x", reference="kd") == []


def test_custom_runs_are_no_reference_and_not_ranked(tmp_path: Path) -> None:
    factory.write_records(tmp_path, make(custom=True), make(method__name="x"))
    store = Store.memory(tmp_path)
    assert store.deltas(method="x") == []
    assert [row["method"] for row in store.coverage()] == ["x"]


def test_a_repeat_does_not_replace_the_first_result(tmp_path: Path) -> None:
    again = {"created_at": "2026-03-01T00:00:00Z", "finished_at": "2026-03-01T01:00:00Z"}
    factory.write_records(tmp_path, make(score=70.0), make(score=99.0, **again))
    cell = Store.memory(tmp_path).cells()[0]
    assert (cell["n"], cell["mean"], cell["sd"]) == (1, 70.0, None)


def test_newest_adapter_is_current(tmp_path: Path) -> None:
    factory.write_records(
        tmp_path, make(score=70.0, method__adapter_version="1.9.0"), make(score=72.0, method__adapter_version="1.10.0")
    )
    current = Store.memory(tmp_path).cells(current=True)
    assert [(cell["adapter_version"], cell["mean"]) for cell in current] == [("1.10.0", 72.0)]


def test_coverage(folder: Path) -> None:
    factory.write_records(folder, make(method__name="z", status="not_applicable"))
    rows = {row["method"]: row for row in Store.memory(folder).coverage()}
    assert (rows["kd"]["ok"], rows["y"]["failed"], rows["z"]["not_applicable"]) == (3, 1, 1)
    assert rows["y"]["last_error"].startswith("OutOfMemory")


def test_side_files(folder: Path, index: Path) -> None:
    run_id = Store.memory(folder).runs(method="x", seed=0)[0]["run_id"]
    side = _side(folder, run_id)
    with Store(index) as store:
        assert store.ingest(folder).new == 11
        run = store.runs(run_id=run_id)[0]
        assert (run["level"], run["verification_failed"], run["is_withdrawn"]) == (3, False, False)
        _side(folder, run_id, verdict="failed", withdrawn=True)
        assert store.ingest(folder).new == 1
        run = store.runs(run_id=run_id)[0]
        assert (run["level"], run["verification_failed"], run["is_withdrawn"]) == (0, True, True)
        assert len(store.query("SELECT * FROM verifications")) == 1
        assert store.cells(method="x")[0]["seeds"] == [1, 2]
        assert store.coverage(method="x")[0]["withdrawn"] == 1
        side.write_text("{")
        assert [problem.file for problem in store.ingest(folder).bad] == [str(side)]


def test_bad_files_are_reported_and_keep_nobody_out(folder: Path, index: Path) -> None:
    good = make()
    junk = {
        "0" * 32: b"{",
        "1" * 32: json.dumps({**good, "run_id": "1" * 32, "seed": float("nan")}).encode(),
        "2" * 32: json.dumps({**good, "schema_version": 9}).encode(),
        "3" * 32: json.dumps(good).encode(),
        "4" * 32: b" " * 1_100_000,
    }
    for name, content in junk.items():
        (folder / f"{name}.json").write_bytes(content)
    (folder / "again").mkdir()
    twin = next(path for path in sorted(folder.glob("*.json")) if path.stem not in junk)
    (folder / "again" / twin.name).write_bytes(twin.read_bytes())
    (folder / "lost.json").symlink_to(folder / "nowhere")
    (folder / "notes.txt").write_text("not a record")
    (folder / ".hidden.json").write_text("{")
    with Store(index) as store:
        report = store.ingest(folder)
        assert report.new == 10
        assert len(store.runs()) == 10
        assert store.ingest(folder).bad == report.bad
    said = {Path(problem.file).stem: str(problem) for problem in report.bad}
    assert "is not whole JSON" in said["0" * 32]
    assert "holds NaN" in said["1" * 32]
    assert "upgrade kdbench" in said["2" * 32]
    assert f"must be named {good['run_id']}.json" in said["3" * 32]
    assert "larger than" in said["4" * 32]
    assert "cannot be read" in said["lost"]
    assert "one of the two files must go" in said[twin.stem]


def test_a_record_that_changed_is_bad(folder: Path, index: Path) -> None:
    path = next(folder.glob("*.json"))
    with Store(index) as store:
        store.ingest(folder)
        path.write_text(path.read_text().replace('"submitter": null', '"submitter": "me"'))
        report = store.ingest(folder)
        assert "records are immutable" in report.bad[0].message
        assert store.query("SELECT count(*) AS n FROM runs WHERE submitter = 'me'") == [{"n": 0}]
    assert Store.rebuild(index, folder).new == 10
    with Store(index) as store:
        assert store.query("SELECT count(*) AS n FROM runs WHERE submitter = 'me'") == [{"n": 1}]


def test_upgraded_records_are_taken_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make(method__name="old")
    old["schema_version"] = 0
    (folder / f"{old['run_id']}.json").write_text(json.dumps(old))
    monkeypatch.setitem(records.UPGRADES, 0, lambda raw: raw)
    store = Store.memory(folder)
    assert (store.record(old["run_id"]) or {})["schema_version"] == 1


def test_missing_source(index: Path, tmp_path: Path) -> None:
    with Store(index) as store, pytest.raises(UserError, match="does not exist"):
        store.ingest(tmp_path / "nowhere")


def test_rebuild_equals_ingest(folder: Path, index: Path) -> None:
    paths = sorted(folder.glob("*.json"))
    _side(folder, paths[0].stem)
    with Store(index) as store:
        for path in reversed(paths):
            store.ingest(path)
        store.ingest(folder)
        before = _everything(store, TABLES + VIEWS)
    report = Store.rebuild(index, folder)
    assert (report.new, report.bad) == (11, ())
    with Store(index) as store:
        assert _everything(store, TABLES + VIEWS) == before
    assert sorted(path.name for path in index.parent.iterdir()) == ["index.duckdb", "records"]


@pytest.mark.parametrize("content", [b"this is no database", b"", os.urandom(5000)])
def test_other_files_are_refused_and_can_be_rebuilt(content: bytes, folder: Path, index: Path) -> None:
    index.write_bytes(content)
    os.utime(index, (1, 1))
    with pytest.raises(UserError, match="is no DuckDB file") as caught:
        Store(index)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert index.read_bytes() == content
    assert len(list(folder.glob("*.json"))) == 10
    assert Store.rebuild(index, folder).new == 10


def test_foreign_and_other_version(folder: Path, index: Path, tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "foreign.duckdb")) as connection:
        connection.execute("CREATE TABLE t(a INTEGER)")
    with pytest.raises(UserError, match="no index of kdbench"):
        Store(tmp_path / "foreign.duckdb")
    for version, said in [(99, "newer than this kdbench; upgrade"), (0, "older than this kdbench; rebuild")]:
        with Store(index) as store:
            store.query("UPDATE schema_meta SET version = ?", [version])
        with pytest.raises(UserError, match=said):
            Store(index)
        Store.rebuild(index, folder)
    with Store(index) as store:
        store.query("ALTER TABLE overhead DROP COLUMN rss_mib")  # as before the quantity was measured
    with pytest.raises(StoreOld, match="lacks rss_mib; rebuild it"):
        Store(index)
    with pytest.raises(UserError, match="there is no index"):
        Store(tmp_path / "none.duckdb", read_only=True)


def test_read_only(folder: Path, index: Path) -> None:
    with Store(index) as store:
        store.ingest(folder)
    with Store(index, read_only=True) as store:
        assert len(store.runs()) == 10
        with pytest.raises(duckdb.InvalidInputException):
            store.query("DELETE FROM runs")


def test_files_that_duckdb_1_4_opens(index: Path) -> None:
    with Store(index) as store:
        tags = store.query("SELECT tags FROM duckdb_databases() WHERE database_name = 'index'")[0]["tags"]
        assert tags["storage_version"].startswith("v1.4")


HOSTILE = ["<script>alert(1)</script>", "=cmd|' /C calc'!A0", "'; DROP TABLE runs; --", "\u202egnp.exe", 'a"b\\c\n,d']


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_kept_as_text(text: str, tmp_path: Path) -> None:
    raw = make(provenance__submitter=text, method__paper__title=text, status="failed")
    raw["error"]["message"] = text
    factory.write_records(tmp_path / "records", raw)
    store = Store.memory(tmp_path / "records")
    assert store.runs(submitter=text)[0]["error"] == f"OutOfMemory: {text}"
    assert store.query("SELECT title FROM methods") == [{"title": text}]
    assert (store.record(raw["run_id"]) or {})["provenance"]["submitter"] == text
    _, table = store.export(tmp_path / "out")
    with table.open(newline="", encoding="utf-8") as file:
        cell = next(csv.DictReader(file))["submitter"]
    assert cell == (f"'{text}" if text[0] in "=+-@" else text)


def test_csv_guards_only_text() -> None:
    rows = [{"a": "@x", "b": -1.5, "c": None}, {"a": "\tx", "b": 0.1, "c": "-"}]
    assert to_csv(rows, ["a", "b", "c"]) == "a,b,c\n'@x,-1.5,\n'\tx,0.1,'-\n"


def test_export(folder: Path, tmp_path: Path) -> None:
    store = Store.memory(folder)
    parquet, table = store.export(tmp_path / "out")
    first = (parquet.read_bytes(), table.read_bytes())
    store.export(tmp_path / "out")
    assert (parquet.read_bytes(), table.read_bytes()) == first
    rows = duckdb.sql(f"SELECT method, seed, score, step_ratio, record FROM read_parquet('{parquet}')").fetchall()
    assert len(rows) == 10
    assert json.loads(rows[0][4])["schema_version"] == 1
    with table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["method"] for line in lines} == {"plain", "kd", "x", "y"}
    assert "record" not in lines[0]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["runs.csv", "runs.parquet"]


def test_the_index_has_a_column_for_every_measured_quantity_of_one_value(index, tmp_path):
    record = make(overhead={**make()["overhead"], "views_per_sample": 2**40})
    record["overhead"]["measured_by"] = record["run_id"]
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / f"{record['run_id']}.json").write_text(json.dumps(record))
    with Store(index) as store:
        assert not store.ingest(folder).bad
        (row,) = store.query("SELECT * FROM overhead")
    block = record["overhead"]
    single = {name: value for name, value in block.items() if not isinstance(value, list | dict | None)}
    assert {name: row[name] for name in single} == single
