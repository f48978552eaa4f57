"""Methods without a teacher on every classification task, and the row that cskd cannot pair."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdbench import cli, models
from kdbench.contract import Batch
from kdbench.engine import applicability
from kdbench.engine.assemble import needs_of
from kdbench.engine.task import evaluating
from kdbench.specs import registry
from kdbench.specs.config import run_config
from kdbench.specs.task import TaskSpec

METHODS = ("pskd", "cskd", "dlb", "lwr", "introspective")
CLASSIFICATION = {name: spec for name, spec in registry.tasks().items() if spec.kind == "classification"}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_without_a_teacher_is_refused_by_no_classification_task(method: str) -> None:
    """Neither its kind, nor a teacher, nor what two inputs show stands in its way; no batch of a task is too small."""
    needs = needs_of(run_config(method, "digits/few-shot").method)
    assert needs.inputs == "any"
    assert not needs.data
    for name, spec in CLASSIFICATION.items():
        assert applicability.kind_and_roles(needs, spec) == [], name
        assert spec.train.batch >= needs.min_batch, name


HEADED = {"mobilenetv2", "shufflenetv2"}
"""Nets with a convolution between their last map and the pool: introspective is not applicable there, and says so."""


def students() -> list[str]:
    """Nets of students of classification tasks that kdbench builds itself, on pictures."""
    nets = {spec.pair.student.net for spec in CLASSIFICATION.values() if _own_picture(spec)}
    return sorted(nets)


def _own_picture(spec: TaskSpec) -> bool:
    return models.recipe(spec.pair.student.net).axes == models.IMAGE and ":" not in spec.pair.student.net


@pytest.mark.parametrize("net", students())
def test_introspective_finds_what_it_explains_by_in_students(net: str) -> None:
    """Maps and a linear layer on the pooled last one, but in two nets; the other methods read class scores alone."""
    needs = needs_of(run_config("introspective", "digits/few-shot").method)
    made = models.build(net, (3, 32, 32), 10)
    with evaluating(made):
        out = made(Batch({"image": torch.randn(2, 3, 32, 32)}, torch.zeros(2), torch.arange(2)))
    assert needs.student <= applicability.offers_of(made, out)
    assert (made.classifier.in_features == out.maps[-1].shape[1]) is (net not in HEADED)


def test_a_class_with_one_row_is_one_line_for_cskd(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "--method",
        "cskd",
        "--task",
        "digits/few-shot",
        "--seed",
        "0",
        "--overhead",
        "off",
        "--out",
        str(tmp_path),
    ]
    monkeypatch.setattr("sys.argv", ["kdbench", "evaluate", *words, "data.subset.per_class=1"])
    with pytest.raises(SystemExit):
        cli.main()
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert "it pairs rows of one class, and class 0 has one training row" in " ".join(said.split())
    assert "Traceback" not in said
