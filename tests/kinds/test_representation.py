"""Representations: the loss, what is probed, the untrained student beside it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from kdbench import kinds, models
from kdbench.base.errors import UserError
from kdbench.checks.tiny import Setting, rows, task_spec
from kdbench.contract import Batch, Out, Rows
from kdbench.engine.scoring import Scorer
from kdbench.engine.task import Keeper, Task
from kdbench.kinds.base import Evidence
from kdbench.kinds.pretexts import SimCLR
from kdbench.specs import registry
from kdbench.specs.task import TaskSpec

TEMPERATURE = SimCLR().temperature
KIND = kinds.kind("representation")
SETTING = Setting("representation", ("image",), False, "image", "convnet_w4", "convnet_w8")


def tiny_task() -> Task:
    return Task(task_spec(SETTING), rows(SETTING), torch.device("cpu"), 0, Keeper(Path("x"), Path("x"), {}))


def test_the_loss_is_simclrs_by_hand() -> None:
    z = torch.randn(6, 5, dtype=torch.float64)
    unit = z / z.norm(dim=1, keepdim=True)
    total = 0.0
    for row in range(6):
        others = [float((unit[row] @ unit[other] / TEMPERATURE).exp()) for other in range(6) if other != row]
        positive = float((unit[row] @ unit[(row + 3) % 6] / TEMPERATURE).exp())
        total -= torch.tensor(positive / sum(others)).log()
    assert float(KIND.loss(Out(z), Batch({}, None, torch.arange(6), 2))) == pytest.approx(float(total / 6), rel=1e-6)


def test_training_sees_numbers_and_a_step_two_views() -> None:
    from kdbench.contract import Stage

    task = tiny_task()
    assert task.train_labels.tolist() == list(range(task.n_train))
    batch = task.loader(Stage("s", losses=lambda batch, at: {}, groups=[], epochs=1), 1).draw(0)
    assert batch.views == 2


def test_what_is_probed_are_embeddings_of_the_body() -> None:
    net = models.build("project8:convnet_w4", (1, 8, 8), 0).eval()
    out = net.encode(torch.randn(3, 1, 8, 8))
    assert out.logits.shape == (3, 8)
    assert out.emb.shape == (3, 16)


def test_scores_are_of_a_probe_and_of_the_student_before_training() -> None:
    task = tiny_task()
    net = task.build_student()
    scorer = Scorer(task)
    names = ["probe", "probe_few", "knn", "probe_untrained", "probe_few_untrained"]
    object.__setattr__(task.spec.score, "also", names[1:])
    before = scorer.all(net)
    assert before["probe"] == before["probe_untrained"]
    assert before["probe_few"] == before["probe_few_untrained"]
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(3).add_(0.1)
    after = scorer.all(net)
    assert after["probe_untrained"] == before["probe_untrained"]
    assert after != before


def test_a_probe_keeps_which_test_rows_it_tells_and_is_fitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from kdbench.stats import probe

    fitted, linear = [], probe.linear
    monkeypatch.setattr(probe, "linear", lambda *given: fitted.append(given) or linear(*given))
    scorer = Scorer(tiny_task())
    found = scorer.all(scorer.task.build_student())
    assert scorer.each is not None
    assert scorer.each.dtype == torch.bool
    assert 100 * float(scorer.each.double().mean()) == found["probe"]
    told = linear(*fitted[0]) == scorer.y.numpy()
    assert scorer.each.tolist() == told.tolist()
    assert len(fitted) == 1


def test_rows_told_go_by_the_rules_of_the_task() -> None:
    x, y = torch.tensor([[0.0], [0.1], [9.0], [1.0], [8.0]]), torch.tensor([0, 0, 1, 1, 1])
    evidence = Evidence(torch.tensor([[0.9], [8.5]]), torch.tensor([0, 1]), database=(x, y))
    for labels, told in ((1, [True, True]), (3, [False, True])):
        each = KIND.ruled({"labels": labels}).own_metrics["probe_few"].each
        assert each is not None
        assert each(evidence).tolist() == told


def test_rules_of_a_task_decide_the_probe() -> None:
    x = torch.tensor([[0.0], [0.1], [9.0], [1.0], [8.0]])
    y = torch.tensor([0, 0, 1, 1, 1])
    evidence = Evidence(torch.tensor([[0.9]]), torch.tensor([0]), database=(x, y))
    few = KIND.ruled({"labels": 1}).score(["probe_few"], evidence)["probe_few"]
    assert few == 100.0  # 0.9 is nearer to 0 than to 9
    assert KIND.ruled({"labels": {"per_class": 3}}).rules.labels == 3
    with pytest.raises(ValueError, match=r"score\.rules: unknown key 'label' \(did you mean 'labels'"):
        KIND.ruled({"label": 1})
    body = registry.task("digits/probe").model_dump(mode="json")
    with pytest.raises(ValidationError, match="labels"):
        TaskSpec.model_validate({**body, "score": {**body["score"], "rules": {"labels": 0}}})


def test_one_class_cannot_be_probed() -> None:
    one = Rows({"image": torch.zeros(3, 1, 8, 8)}, torch.zeros(3, dtype=torch.int64))
    assert "at least two classes" in (KIND.unscorable(one, one, None) or "")
    two = one._replace(y=torch.tensor([0, 1, 1]))
    assert KIND.unscorable(two, one, None) is None
    line = KIND.unscorable(one._replace(y=two.y + 1), two, None) or ""
    assert "no training row shows a probe the test rows' class 0;" in line


def test_a_probe_has_the_rows_that_a_task_says() -> None:
    rows = Rows({"image": torch.zeros(3, 1, 8, 8)}, torch.tensor([0, 1, 1]))
    line = KIND.ruled({"labels": 2}).unscorable(rows, rows, None) or ""
    assert line == "score.rules.labels=2 is more than the 1 training rows of class 0; lower it"
    line = KIND.ruled({"neighbours": 4}).unscorable(rows, rows, None) or ""
    assert "score.rules.neighbours=4: there are 3 training rows" in line
    assert KIND.ruled({"neighbours": 3, "labels": 1}).unscorable(rows, rows, None) is None


@pytest.mark.parametrize(
    ("name", "changed", "key"),
    [
        ("digits/probe", {"train": {"batch": 1}}, "train.batch: 1"),
        ("digits/hash", {"train": {"batch": 1}}, "train.batch: 1"),
        ("digits/probe", {"data": {"subset": {"rows": 1}}}, "data.subset.rows: 1"),
    ],
)
def test_a_loss_that_compares_rows_needs_two(name: str, changed: dict[str, dict[str, Any]], key: str) -> None:
    body = registry.task(name).model_dump(mode="json")
    body |= {part: {**body[part], **one} for part, one in changed.items()}
    with pytest.raises(ValidationError, match=rf"{key}; the loss of a \w+ task compares rows of a batch, at least 2"):
        TaskSpec.model_validate(body)
    masked = registry.task("digits/masked").model_dump(mode="json")
    TaskSpec.model_validate({**masked, "train": {**masked["train"], "batch": 1}})


@pytest.mark.parametrize(
    ("net", "line"),
    [
        ("project1:convnet_w4", "a projection has at least 2 numbers"),
        ("project8:hash8:convnet_w4", "cannot have a projection head"),
    ],
)
def test_nets_that_cannot_be(net: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        models.build(net, (1, 8, 8), 0)
