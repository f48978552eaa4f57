"""Values of test rows beside a record: written, read, held to the record, and carried wherever it goes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import records as factory

from kdbench.base.home import Home
from kdbench.records import beside, files, items
from kdbench.records.intake import take_in
from kdbench.records.pack import pack, unpack
from kdbench.records.submit import bundle, changes
from kdbench.records.validate import check_file, check_folder

RIGHT = np.arange(797) % 10 > 2
"""On 557 of 797 rows."""


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A record that the validator passes, with its bits beside it."""
    raw = with_bits(RIGHT)
    factory.write_records(tmp_path / "home" / "records", raw)
    path = tmp_path / "home" / "records" / f"{raw['run_id']}.json"
    items.dump(RIGHT, items.path_of(path))
    return path


def with_bits(right: np.ndarray, **more: Any) -> dict[str, Any]:
    raw = factory.make_record(score=100 * float(right.mean()), **more)
    raw["metrics"] |= {"items_sha256": items.digest(right), "test_items": len(right)}
    raw["spec_hash"] = files.spec_hash(raw["provenance"]["config_resolved"])
    return raw


def test_bits_are_read_as_they_were_written_in_a_small_file(kept: Path) -> None:
    found = items.load(items.path_of(kept))
    assert found is not None
    assert np.array_equal(found, RIGHT)
    assert items.path_of(kept).stat().st_size < 2000
    assert check_file(kept) == []


def test_the_digest_is_that_of_a_1_or_0_a_row() -> None:
    # printf 101 | sha256sum
    expected = "16dc368a89b428b2485484313ba67a3912ca03f2b2b42429174a4f8b3dc84e44"
    assert items.digest(np.array([True, False, True])) == expected


ERRORS = np.random.default_rng(0).exponential(5.0, 797)
"""Numbers, one a row."""


def with_numbers(each: np.ndarray, score: float) -> dict[str, Any]:
    raw = factory.make_record(task__metric_primary="mae", metrics__last={"mae": score}, score=score)
    raw["metrics"] |= {"last": {"mae": score}, "items_sha256": items.digest(each), "test_items": len(each)}
    return raw


def test_numbers_are_read_as_they_were_written_and_held_to_digest_and_score(tmp_path: Path) -> None:
    items.dump(ERRORS, tmp_path / "items" / "a.parquet")
    found = items.load(tmp_path / "items" / "a.parquet")
    assert found is not None
    assert found.dtype == np.float64
    assert np.array_equal(found, ERRORS)
    record = files.parse(with_numbers(ERRORS, float(ERRORS.mean())))
    assert items.wrong(found, record) is None
    assert "are not the values" in (items.wrong(found + 1e-9, record) or "")
    assert "have the mean" in (items.wrong(found, files.parse(with_numbers(ERRORS, 9.0))) or "")
    broken = np.where(np.arange(797) == 3, np.nan, ERRORS)
    assert "have the mean nan" in (items.wrong(broken, files.parse(with_numbers(broken, 5.0))) or "")


def test_the_digest_of_numbers_is_that_of_their_bytes() -> None:
    # python -c 'import struct, sys; sys.stdout.buffer.write(struct.pack("<2d", 1.5, -2))' | sha256sum
    assert items.digest(np.array([1.5, -2.0])) == PACKED


PACKED = "bd179027e5d89aea8ed4f7d630cbcad3cc35d3fb375cc9ef7aae3675a7b167cc"


@pytest.mark.parametrize(
    "columns", ["range AS row, 1::FLOAT AS value", "range AS row, 1 AS value, 2 AS more", "1 AS a"]
)
def test_files_of_other_columns_are_none(tmp_path: Path, columns: str) -> None:
    path = tmp_path / "a.parquet"
    duckdb.execute(f"COPY (SELECT {columns} FROM range(3)) TO '{path}' (FORMAT parquet)")
    assert items.load(path) is None


@pytest.mark.parametrize(
    ("bits", "said"),
    [(~RIGHT, "are not the values that the record names"), (None, "is no Parquet file of test rows")],
)
def test_bits_of_another_run_are_an_error_and_go_nowhere(
    kept: Path, tmp_path: Path, bits: np.ndarray | None, said: str
) -> None:
    if bits is None:
        items.path_of(kept).write_bytes(b"PAR1")
    else:
        items.dump(bits, items.path_of(kept))
    (problem,) = check_file(kept)
    assert problem.level == "error"
    assert said in problem.message
    done = bundle([kept], tmp_path / "results")
    assert not items.path_of(tmp_path / "results" / done.added[0]).exists()


def test_bits_that_do_not_give_the_score_are_an_error(kept: Path) -> None:
    raw = with_bits(RIGHT, run_id=kept.stem)
    raw["metrics"]["last"]["top1"] += 1
    factory.write_records(kept.parent, raw)
    assert ["have the mean 69.887" in problem.message for problem in check_file(kept)] == [True]


def test_a_record_without_the_file_is_whole_and_one_without_a_digest_has_no_file(kept: Path) -> None:
    items.path_of(kept).unlink()
    assert check_file(kept) == []
    items.dump(RIGHT, items.path_of(kept))
    raw = with_bits(RIGHT, run_id=kept.stem)
    raw["metrics"]["items_sha256"] = None
    factory.write_records(kept.parent, raw)
    assert ["names no values" in problem.message for problem in check_file(kept)] == [True]


def test_bits_lie_beside_the_shard_of_a_packed_record(kept: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    (place,) = bundle([kept], results).added
    for act in (lambda: pack(results, 1), lambda: unpack(results)):
        act()
        assert beside.Items(results).of(kept.stem) is not None
        assert [problem for problem in check_folder(results) if problem.level == "error"] == []
        assert (results / place).is_file() == items.path_of(results / place).is_file()
    assert items.path_of(results / place).is_file()


def test_bits_go_with_the_record_into_a_home_and_a_request(kept: Path, tmp_path: Path) -> None:
    there = Home(tmp_path / "there")
    take_in(kept.parent, there)
    assert beside.Items(there.records).of(kept.stem) is not None
    repo = tmp_path / "repo"
    for words in (["init", "-q", "-b", "main", str(repo)], ["-C", str(repo), "commit", "-qm", "none", "--allow-empty"]):
        subprocess.run(["git", *AS, *words], check=True)
    results = repo / "leaderboard" / "results"
    done = bundle([kept], results)
    bits = items.path_of(results / done.added[0])
    assert (done.problems, bits.is_file()) == ((), True)
    (bits.parent / f"{'e' * 32}.parquet").write_bytes(b"PAR1")  # of no record
    for words in (["add", "-A"], ["commit", "-qm", "some"]):
        subprocess.run(["git", *AS, "-C", str(repo), *words], check=True)
    (problem,) = changes(results, "HEAD~1")
    assert "is no record" in problem.message


AS = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
