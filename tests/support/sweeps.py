"""Whole sweeps in processes of their own, and what two of them must have in common."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdbench.base.fields import CACHE
from kdbench.base.home import Home
from kdbench.index.store import Store
from kdbench.records.files import Record, load

ENV = {**os.environ, "OMP_NUM_THREADS": "1", "KDBENCH_CHECKPOINT_SECONDS": "0.2"}
OTHERWISE = {"elapsed_s", "device_h", "created_at", "finished_at", "run_id", "git_commit", "dirty"}
"""Fields that may differ between two runs of the same thing, the second of which may follow an edit of these tests."""


def sweep(home: Home, *words: str, **env: str) -> subprocess.Popen[str]:
    """``kdbench sweep``, under way."""
    command = [sys.executable, "-m", "kdbench", "sweep", *words, "--device", "cpu", "--out", str(home.root)]
    return subprocess.Popen(
        command, env={**ENV, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    out, err = process.communicate(timeout=1200)
    return process.returncode, out, err


def records(home: Home) -> list[Record]:
    """All records of a home folder."""
    return [load(path) for path in sorted(home.records.glob("*.json"))]


def below(pid: int) -> Iterator[tuple[int, str]]:
    """Processes below one, with their command lines."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(folder.name))
    for child in parents.get(pid, []):
        with contextlib.suppress(OSError):
            yield child, (Path("/proc") / str(child) / "cmdline").read_text().replace("\0", " ")
        yield from below(child)


def kill_family(process: subprocess.Popen[str]) -> None:
    """Kills a sweep and all it started at once, as when the machine goes down."""
    for pid in [process.pid, *(pid for pid, _ in below(process.pid))]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def result(record: Record) -> dict[str, Any]:
    """What a record says of its run beside clocks, chance names and commits, and which run kept answers for others."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if key not in OTHERWISE}
        return [plain(item) for item in value] if isinstance(value, list) else value

    found: dict[str, Any] = plain(record.model_dump(mode="json"))
    found["stages"] = [stage for stage in found["stages"] if stage["ledger"] != CACHE]
    return found


def results(home: Home) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The result of every run of a home folder; each stands there once."""
    found = records(home)
    counts = Counter((record.method_name, record.task.name, record.seed) for record in found)
    assert set(counts.values()) <= {1}, counts
    return {(record.method_name, record.task.name, record.seed): result(record) for record in found}


def weights(home: Home) -> dict[tuple[str, str, int], str]:
    """Hash of the exported student of every run, as it lies on disk."""
    return {
        (record.method_name, record.task.name, record.seed): hashlib.sha256(
            (home.students / f"{record.run_id}.safetensors").read_bytes()
        ).hexdigest()
        for record in records(home)
    }


def check_equal(home: Home, undisturbed: Home) -> None:
    """Every run there once, with the undisturbed sweep's result and weights, in the index, and nothing unfinished."""
    assert results(home) == results(undisturbed)
    assert weights(home) == weights(undisturbed)
    with Store(home.index, read_only=True) as store:
        assert sorted(row["run_id"] for row in store.runs()) == sorted(record.run_id for record in records(home))
    assert [path for path in home.runs.iterdir() if path.is_dir()] == []
    assert not list(home.root.glob("*/*.damaged*"))


def tiny_pictures(folder: Path, name: str = "mnist", size: int = 28, rows: int = 64) -> Path:
    """A data folder with a few made-up rows under the name of a data set of grey pictures."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    rng = np.random.default_rng(0)
    (folder / name).mkdir(parents=True)
    for part in ("train", "test"):
        files = []
        for _ in range(rows):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (size, size), dtype=np.uint8)).save(buffer, "PNG")
            files.append({"bytes": buffer.getvalue(), "path": None})
        table = pa.table({"image": files, "label": [row % 10 for row in range(rows)]})
        pq.write_table(table, folder / name / f"{part}.parquet")
    return folder
