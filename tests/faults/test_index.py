"""The index deleted, damaged, locked, and under eight writers: the records are the truth, and it follows from them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import records as factory
from forked import Warm
from sweeps import ended, records, sweep

from kdbench.base.home import Home
from kdbench.index import home as index
from kdbench.index.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
make: Callable[..., dict[str, Any]] = factory.make_record
RUN = ("-t", "digits/few-shot", "--smoke", "--overhead", "off", "--device", "cpu")


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with Warm(tmp_path_factory.mktemp("warm")) as process:
        yield process


def in_index(home: Home) -> list[str]:
    with Store(home.index, read_only=True) as store:
        return sorted(row["run_id"] for row in store.runs())


def test_an_index_that_was_deleted_or_damaged_is_made_again(warm: Warm, tmp_path: Path) -> None:
    """Sixty ways of damage. What cannot be read is set aside, which is said in one line, and nothing else is lost."""
    home, seed = Home(tmp_path / "home"), random.randrange(10**6)
    rng = random.Random(seed)
    assert warm.run("evaluate", "-m", "plain", "--seeds", "0-2", *RUN, "--out", home.root).code == 0
    sound = home.index.read_bytes()

    def flip(content: bytearray) -> bytes:
        for _ in range(rng.choice([1, 1, 20, 400])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        return bytes(content)

    def blank(content: bytearray) -> bytes:
        at = rng.randrange(len(content) - 4096)
        return bytes(content[:at]) + rng.randbytes(4096) + bytes(content[at + 4096 :])

    damage: list[Callable[[bytearray], bytes]] = [
        lambda content: b"",
        lambda content: b"not a database, whatever its name says" * 200,
        lambda content: bytes(len(content)),
        lambda content: bytes(content[: rng.randrange(1, len(content))]),
        flip, flip, flip, blank, blank, blank,
    ]  # fmt: skip
    told = 0
    for number in range(60):
        where = f"damage {number}, seed {seed}"
        content = damage[number % len(damage)](bytearray(sound))
        if number == 30:
            home.index.unlink()
        else:
            home.index.write_bytes(content)
        words = ("results",) if number % 3 else ("evaluate", "-m", "plain", "--seeds", "0-2", *RUN)
        done = warm.run(*words, "--out", home.root)
        assert done.code == 0, f"{where}: {done.err}"
        said = [line for line in done.err.splitlines() if "damaged" in line]
        assert len(said) <= 1, f"{where}: {done.err}"
        told += len(said)
        aside = list(home.root.glob("index.duckdb.damaged-*"))
        assert len(aside) == len(said), where
        for path in aside:
            path.unlink()
        with Store(home.index) as store:
            store.ingest(home.records)
        assert in_index(home) == sorted(record.run_id for record in records(home)), where
    assert told > 20


HOLD = """
import duckdb, sys, time
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def test_an_index_that_is_locked_all_along(tmp_path: Path) -> None:
    """A sweep asks the records themselves, says so once, and its runs come into the index with the next use."""
    home = Home(tmp_path)
    with Store(home.index):
        pass
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(home.index), "30"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    factory.write_records(home.records, make())
    code, _, err = ended(sweep(home, "-m", "plain,kd", *RUN[:-2], "--seeds", "0"))
    holder.wait()
    index.update(home)
    assert code == 0, err
    assert err.count("the records themselves are read") == 1
    assert len(records(home)) == 3
    assert in_index(home) == [record.run_id for record in records(home)]


WRITE = """
import json, sys
from pathlib import Path
from kdbench.records.files import dump, parse
from kdbench.index.store import Store
from kdbench.index.file import StoreLocked
index, folder, source = map(Path, sys.argv[1:])
waiting = []
for number, line in enumerate(source.read_text().splitlines(), 1):
    waiting.append(dump(parse(json.loads(line)), folder))
    if number % 5:
        continue
    try:
        with Store(index, wait_s=5) as store:
            store.ingest(*waiting)
            waiting.clear()
    except StoreLocked:
        pass  # the next one takes them in
"""
WRITERS, EACH = 8, 200


def test_eight_writers_and_a_reader(tmp_path: Path) -> None:
    """Nothing is lost, nothing half-read: what the reader sees only grows, and each run has all its metrics."""
    home = Home(tmp_path / "home")
    home.records.mkdir(parents=True)
    writers = []
    for writer in range(WRITERS):
        lines = [json.dumps(make(seed=writer * EACH + seed)) for seed in range(EACH)]
        (tmp_path / f"{writer}.ndjson").write_text("\n".join(lines))
        command = [sys.executable, "-c", WRITE, *map(str, (home.index, home.records, tmp_path / f"{writer}.ndjson"))]
        writers.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    seen, files = [0], [0]
    while any(writer.poll() is None for writer in writers):
        time.sleep(0.3)
        whole = records(Home(home.root))  # each file is a whole record at any moment
        files.append(len(whole))
        if home.index.exists():
            with Store(home.index, wait_s=60) as store:
                (row,) = store.query(
                    "SELECT count(*) AS runs, count(*) FILTER (m.n = 2) AS full FROM runs"
                    " LEFT JOIN (SELECT run_id, count(*) AS n FROM metrics GROUP BY run_id) m USING (run_id)"
                )
            assert row["runs"] == row["full"]
            seen.append(row["runs"])
    assert seen == sorted(seen)
    assert files == sorted(files)
    assert [writer.communicate()[1] for writer in writers] == [""] * WRITERS
    assert [writer.returncode for writer in writers] == [0] * WRITERS
    with Store(home.index) as store:
        store.ingest(home.records)
        assert len(store.runs()) == WRITERS * EACH
        assert {row["seed"] for row in store.runs()} == set(range(WRITERS * EACH))
    assert len(records(home)) == WRITERS * EACH
