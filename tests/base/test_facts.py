"""Files that kdbench writes for itself, and what is left of them when others wrote there."""

from __future__ import annotations

import json

import pytest

from kdbench.base.files import read_facts
from kdbench.runs.earlier import Begun


@pytest.mark.parametrize("text", ["", "[]", "3", "null", '"run_id"', '{"other": 1}', '{"run_id": "x"}', "\udcff"])
def test_what_holds_no_facts_is_a_value_error_and_no_run_that_was_begun(text, tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError):  # noqa: PT011
        read_facts(path, "run_id", "created_at")
    assert Begun._read(tmp_path) is None


def test_facts_are_what_was_written(tmp_path):
    facts = {"run_id": "x", "created_at": "then"}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    assert read_facts(tmp_path / "run.json", "run_id") == facts
    assert Begun._read(tmp_path) == Begun("x", "then", None)
