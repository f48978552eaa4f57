"""Records and side files from strangers: valid or refused in one line, whatever they hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzzing
import pytest
import records as factory
from hypothesis import strategies as st

from kdbench.index.csv import to_csv
from kdbench.index.store import Store
from kdbench.records.files import SIDE_FOLDER, load, load_side, read_text
from kdbench.records.folder import records_of
from kdbench.records.provenance import PUBLISHED
from kdbench.records.submit import bundle
from kdbench.records.validate import check_file, check_folder

pytestmark = pytest.mark.timeout(900)
make: Callable[..., dict[str, Any]] = factory.make_record
FEW, MANY = 60, pytest.param(5000, marks=pytest.mark.slow)


def originals() -> list[dict[str, Any]]:
    """Published records of several shapes, and made ones that did not end well."""
    found = sorted(records_of(PUBLISHED))
    chosen = {path.parent: path for path in found}
    return [*(json.loads(read_text(path)) for path in chosen.values()), make(), make(status="oom")]


def checked(path: Path) -> None:
    """The validator lists problems of one line, and none but those :func:`load` refuses for."""
    problems = check_file(path)
    for problem in problems:
        assert problem.file == str(path)
        assert problem.message
        assert "\n" not in f"{problem.field}{problem.message}"
    if fuzzing.refused_in_one_line(lambda: load(path)) is None:
        assert any(problem.level == "error" for problem in problems)


@pytest.mark.parametrize("count", [FEW, MANY])
def test_a_changed_record_is_valid_or_its_problems_are_listed(count: int, tmp_path: Path) -> None:
    start = originals()

    def check(which: int, changes: list[Any], cuts: list[Any]) -> None:
        tree = fuzzing.edited(start[which % len(start)], changes)
        text = json.dumps(tree, ensure_ascii=which % 2 == 0)
        name = tree.get("run_id") if isinstance(tree, dict) else None
        plain = isinstance(name, str) and name.isalnum() and name.isascii() and len(name) < 100
        path = tmp_path / f"{name if plain else 'x'}.json"
        path.write_bytes(fuzzing.cut(text.encode(errors="surrogatepass"), cuts))
        checked(path)
        path.unlink()

    fuzzing.fuzz(count, [tmp_path], check, st.integers(0, 200), fuzzing.edits, st.just([]) | fuzzing.cuts)


@pytest.mark.parametrize("count", [30, pytest.param(1500, marks=pytest.mark.slow)])
def test_a_changed_side_file_is_valid_or_its_problems_are_listed(count: int, tmp_path: Path) -> None:
    folder = tmp_path / SIDE_FOLDER
    folder.mkdir()
    sides = [json.loads(path.read_text()) for path in sorted(PUBLISHED.rglob(f"{SIDE_FOLDER}/*.json"))[:5]]
    name = "0" * 32
    verification = {"level": 3, "by": "a", "date": "2026-01-02T03:04:05Z", "verdict": "passed", "delta": 0.5}
    sides.append({"schema_version": 1, "run_id": name, "verifications": [verification], "withdrawn": None})

    def check(which: int, changes: list[Any], cuts: list[Any]) -> None:
        tree = fuzzing.edited({**sides[which % len(sides)], "run_id": name}, changes)
        path = folder / f"{name}.json"
        path.write_bytes(fuzzing.cut(json.dumps(tree).encode(), cuts))
        fuzzing.refused_in_one_line(lambda: load_side(path))
        assert all("\n" not in problem.message for problem in check_file(path))

    fuzzing.fuzz(count, [tmp_path], check, st.integers(0, 20), fuzzing.edits, st.just([]) | fuzzing.cuts)


@pytest.mark.parametrize("count", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_a_folder_of_changed_records_is_indexed_bundled_and_exported(count: int, tmp_path: Path) -> None:
    """Twenty records at a time, of free text that survives the schema: no bad one keeps the others out."""
    good = [make(seed=seed) for seed in range(2)]
    fields = [
        "method.paper.title", "method.name", "method.variant", "task.name", "task.unit", "models.student.arch",
        "provenance.command", "provenance.submitter", "environment.cpu", "environment.os", "method.params",
        "models.teachers.0.source", "task.data.0.source", "protocol.augment", "method.paper.bibkey",
    ]  # fmt: skip

    def check(number: int, changes: list[tuple[str, Any]]) -> None:
        folder = tmp_path / str(number)
        factory.write_records(folder / "in", *good)
        kept = 0
        for field, value in changes:
            raw = factory.set_field(make(), field, value)
            (folder / "in" / f"{raw['run_id']}.json").write_text(json.dumps(raw))
            kept += not any(p.level == "error" for p in check_file(folder / "in" / f"{raw['run_id']}.json"))
        check_folder(folder / "in")
        with Store.memory(folder / "in") as store:
            rows = store.runs()
            assert len(rows) >= 2 + kept
            for line in to_csv(rows, ["method", "task", "student", "error"]).splitlines()[1:]:
                assert not any(cell.strip('"')[:1] in {"=", "+", "-", "@"} for cell in line.split(",") if cell)
        done = bundle([folder / "in"], folder / "out")
        assert len(done.added) >= 2
        root = (folder / "out").resolve()
        assert all((root / path).resolve().is_relative_to(root) for path in done.added)

    folders = iter(range(10**6))
    texts = st.tuples(st.sampled_from(fields), st.sampled_from(fuzzing.HOSTILE_TEXT) | fuzzing.hostile_values)
    fuzzing.fuzz(
        count,
        [tmp_path, Path("/tmp")],
        lambda changes: check(next(folders), changes),
        st.lists(texts, min_size=20, max_size=20),
    )
