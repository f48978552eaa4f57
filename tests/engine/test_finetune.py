"""Fine-tuning behind training without labels: what it starts from, its line in the ledger, what it costs, resuming."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from kdbench.base.fields import EVALUATION
from kdbench.base.home import Home
from kdbench.engine.finetune import Finetuner
from kdbench.engine.task import Keeper, Task
from kdbench.kinds.base import Evidence
from kdbench.results.costs import lines, totals
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs import registry
from kdbench.specs.config import run_config
from kdbench.specs.task import TaskSpec

TASK = "digits/masked"
SMALL = ["score.also=[probe,finetune]", "pair.student.net='mae8d1:vit_w8d1h2p2'"]


def tuned(name: str = TASK, **more: object) -> TaskSpec:
    body = registry.task(name).model_dump(mode="json", exclude_none=True)
    return TaskSpec.model_validate({**body, "score": {**body["score"], **more}})


def made(tmp_path: Path) -> tuple[Finetuner, Task]:
    config = run_config("plain", TASK, [*SMALL, "score.finetune.epochs=2"])
    rows = Request(config, 0, torch.device("cpu"), Home(tmp_path)).load().head(100)
    task = Task(config.task, rows, torch.device("cpu"), 0, Keeper(tmp_path, tmp_path, {}))
    return Finetuner(task, tmp_path / "run"), task


def test_a_copy_is_trained_with_labels_and_the_network_stays(tmp_path: Path) -> None:
    finetune, task = made(tmp_path)
    net = task.build_student()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    scores = finetune(net, "finetune")
    assert scores.shape == (len(task.data.test.y), 10)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [(report.name, report.ledger, report.steps) for report in finetune.reports] == [("finetune", EVALUATION, 4)]
    again, other = made(tmp_path / "again")
    assert torch.equal(again(other.build_student(), "finetune"), scores)
    assert torch.equal(finetune(net, "finetune"), scores)  # from its checkpoint
    with torch.no_grad():
        next(net.parameters()).mul_(2)
    assert not torch.equal(again(net, "finetune-other"), scores)


def test_a_run_has_a_line_of_its_own_that_no_total_counts(tmp_path: Path) -> None:
    words = [*SMALL, "score.finetune.epochs=1"]
    config = run_config("plain", TASK, words, smoke=True)
    record = run.run_seed(Request(config, 0, torch.device("cpu"), Home(tmp_path), overhead="off"))
    assert record.status == "ok", record.error
    assert record.metrics is not None
    assert record.metrics.last.keys() == {"probe_few", "probe", "finetune"}
    apart = [("probe", EVALUATION), ("finetune", EVALUATION)]
    assert [(stage.name, stage.ledger) for stage in record.stages] == [("distill", "distill"), *apart]
    costs, priced = totals(record), lines(record)
    assert costs.student_h == costs.recipe_h == priced[0].hours
    assert all(line.hours > 0 for line in priced[1:])


def test_the_metric_is_top_1_of_what_was_fine_tuned() -> None:
    kind = registry.task(TASK).of_kind
    evidence = Evidence(None, torch.tensor([0, 1, 1]), finetuned=torch.eye(2)[[0, 1, 0]])
    assert kind.score(["finetune", "finetune_untrained"], evidence) == {"finetune": pytest.approx(200 / 3)}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"finetune": None}, "finetune needs score.finetune: {epochs, batch, optimizer}"),
        ({"also": ["probe"]}, "score.finetune belongs to metrics of fine-tuning"),
        ({"primary": "finetune"}, "finetune is of a protocol behind training; put it into score.also"),
    ],
)
def test_what_does_not_belong_together_is_refused(change: dict[str, object], line: str) -> None:
    with pytest.raises(ValidationError) as refused:
        tuned(**change)
    assert line in str(refused.value)
