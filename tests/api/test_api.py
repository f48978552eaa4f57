"""What ``import kdbench`` offers: by name, at once, and as tables."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import records as factory

import kdbench
from kdbench.api import results
from kdbench.base.errors import UserError
from kdbench.records.files import parse
from kdbench.specs import registry


def test_importing_kdbench_imports_neither_torch_nor_a_room():
    code = (
        "import sys, kdbench; assert set(n for n in sys.modules if n.startswith('kdbench')) == {'kdbench'}\n"
        "assert kdbench.methods() and kdbench.tasks(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_methods_and_tasks_are_listed():
    assert set(kdbench.methods()) == set(registry.methods())
    assert "dkd" in kdbench.methods(family="logit")
    assert "dkd" not in kdbench.methods(kind="regression")
    assert all(spec.kind == "regression" for spec in kdbench.tasks(kind="regression").values())
    assert "digits/few-shot" in kdbench.tasks(ranked=True)


def test_a_room_that_was_imported_is_a_verb_still():
    import kdbench.methods.kd.adapter

    assert "kd" in kdbench.methods()


def test_what_is_not_offered_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        kdbench.distil  # noqa: B018
    assert {"Distiller", "losses", "methods", "results"} <= set(dir(kdbench))


@pytest.mark.slow
def test_published_results_are_tables_with_hyper_parameters():
    found = kdbench.results(task="digits/angle", ruleset="published", published=True)
    runs = found.to_pandas()
    assert set(runs["task"]) == {"digits/angle"}
    fitnet = runs[(runs["method"] == "fitnet") & (runs["status"] == "ok")]
    assert set(fitnet["hp.hint_weight"]) == {100.0}
    assert len(fitnet) == len({*fitnet["run_id"]})
    cells = found.to_arrow("cells").to_pylist()
    cell = next(row for row in cells if row["method"] == "fitnet" and row["current"])
    own = fitnet[fitnet["run_id"].isin(json.loads(cell["run_ids"]))]
    assert cell["score.n"] == len(own) > 0
    assert cell["score.mean"] == pytest.approx(own["score"].mean())


def test_of_one_task_only_its_published_records_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "PUBLISHED", tmp_path)
    for task, version in (("digits/few-shot", 1), ("digits/few-shot", 2), ("digits/few-shot-2", 1)):
        raw = factory.make_record(task__name=task, task__version=version)
        factory.write_records((tmp_path / parse(raw).published_path).parent, raw)
    whole = kdbench.results(published=True)
    (tmp_path / "digits__few-shot-2@v1" / "cut.parquet").write_bytes(b"")  # what is not read cannot be seen to be cut
    found = kdbench.results(task="digits/few-shot", published=True)
    assert len(whole.runs) == 3
    assert found.runs == [run for run in whole.runs if run["task"] == "digits/few-shot"]
    assert found.cells == [cell for cell in whole.cells if cell["task"] == "digits/few-shot"]
    assert kdbench.results(task="digits/angle", published=True).runs == []
    monkeypatch.setattr(results, "PUBLISHED", tmp_path / "none")
    with pytest.raises(UserError, match="come with a checkout of kdbench's repository, and this is none"):
        kdbench.results(published=True)


def test_wrong_names_are_said(tmp_path):
    with pytest.raises(UserError, match=r"unknown task 'digits/angel'.*digits/angle"):
        kdbench.results(task="digits/angel", published=True)
    with pytest.raises(UserError, match=r"no records in .*run kdbench.evaluate first"):
        kdbench.results(out=tmp_path)
