"""The DuckDB index under several processes: locks, kill -9, writers and readers at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import records as factory

from kdbench.base.errors import UserError
from kdbench.index.file import StoreLocked
from kdbench.index.store import Store

make: Callable[..., dict[str, Any]] = factory.make_record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return factory.write_small_board(tmp_path / "records")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "index.duckdb"


@contextmanager
def _elsewhere(program: str, *arguments: Path) -> Iterator[subprocess.Popen[str]]:
    """A program in another process; entered once it has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()


HOLD = """
import sys; from pathlib import Path; from kdbench.index.store import Store
with Store(Path(sys.argv[1])) as store:
    print("open", flush=True)
    sys.stdin.readline()
"""


def test_locked(folder: Path, index: Path) -> None:
    with Store(index) as store:
        store.ingest(folder)
    with _elsewhere(HOLD, index) as holder:
        for read_only in (False, True):
            began = time.monotonic()
            with pytest.raises(StoreLocked, match=r"open in another program .*, process \d+") as caught:
                Store(index, read_only=read_only, wait_s=0.3)
            assert 0.25 < time.monotonic() - began < 3
            assert isinstance(caught.value, UserError)
        with pytest.raises(StoreLocked):
            Store.rebuild(index, folder, wait_s=0.2)
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()
        with Store(index, wait_s=20) as store:
            assert len(store.runs()) == 10


KILLED = """
import os, signal, sys; from pathlib import Path; import kdbench.index.store as s
store = s.Store(Path(sys.argv[1]))
store.ingest(*sorted(Path(sys.argv[2]).glob("*.json"))[:4])
real, calls = s.Store._remember, []
def die(self, files):
    print("within", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
s.Store._remember = die
store.ingest(Path(sys.argv[2]))
"""


def test_kill_within_an_ingest_loses_nothing_committed(folder: Path, index: Path) -> None:
    with _elsewhere(KILLED, index, folder) as process:
        assert process.wait(20) == -signal.SIGKILL
    with Store(index) as store:
        assert len(store.runs()) == 4
        report = store.ingest(folder)
        assert (report.new, report.unchanged, report.bad) == (6, 4, ())
        assert len(store.query("SELECT * FROM metrics")) == 18


WRITE = """
import sys; from pathlib import Path; from kdbench.index.store import Store
print("go", flush=True)
for path in sorted(Path(sys.argv[2]).glob("*.json"))[int(sys.argv[3]) :: 2]:
    with Store(Path(sys.argv[1])) as store:
        store.ingest(path)
"""


def test_two_writers_and_a_reader(folder: Path, index: Path) -> None:
    counts = []
    with _elsewhere(WRITE, index, folder, Path("0")) as one, _elsewhere(WRITE, index, folder, Path("1")) as two:
        while one.poll() is None or two.poll() is None:
            if index.exists():
                with Store(index) as store:
                    counts.append(len(store.runs()))
            time.sleep(0.05)
        assert (one.returncode, two.returncode) == (0, 0)
    assert counts == sorted(counts)
    with Store(index) as store:
        assert len(store.runs()) == 10
        assert store.ingest(folder).unchanged == 10
