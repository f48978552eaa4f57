"""Records kept as a home folder has them, the index over them, and the command line on both."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from kdbench import cli
from kdbench.index.store import Store
from kdbench.records import files as records


@pytest.fixture
def keep(tmp_path: Path, make_record: Any) -> Any:
    """Writes a record of given fields; a ``protocol`` of full form replaces the resolved one."""

    def write(protocol: dict[str, Any] | None = None, **fields: Any) -> records.Record:
        raw = make_record(**fields)
        if protocol is not None:
            raw["provenance"]["config_resolved"]["protocol"] = protocol
            raw["spec_hash"] = records.spec_hash(raw["provenance"]["config_resolved"])
        record = records.parse(raw)
        records.dump(record, tmp_path / "records")
        return record

    return write


@pytest.fixture
def store(tmp_path: Path) -> Any:
    return lambda: Store.memory(tmp_path / "records")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: Any, capsys: Any) -> Any:
    """The command line on a home of its own: exit code, standard output, standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kdbench", *words, "--out", str(tmp_path)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call
