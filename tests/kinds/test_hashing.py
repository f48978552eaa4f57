"""Hashing: its loss, its two searches, what it hides from training, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdbench import kinds
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.checks.tiny import Setting, rows, task_spec
from kdbench.contract import Batch, Out, Rows, bits
from kdbench.data.feed.dataset import Dataset, Transform
from kdbench.deploy.export import export
from kdbench.engine.assemble import load_data, require_shared
from kdbench.engine.scoring import Scorer
from kdbench.engine.task import Keeper, Task
from kdbench.kinds.base import Scaling
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs.config import run_config
from kdbench.specs.data import Subset
from kdbench.specs.task import TaskSpec

HASHING = kinds.kind("hashing")
SETTING = Setting("hashing", ("image",), False, "image", "convnet_w4", "convnet_w8")


def tiny_task(**changes: object) -> Task:
    data = rows(SETTING)
    if changes:
        data = data.subset(Subset(**changes), 0)
    return Task(task_spec(SETTING), data, torch.device("cpu"), 0, Keeper(Path("x"), Path("x"), {}))


def test_bits_have_the_sigmoids_slope() -> None:
    scores = torch.tensor([[-2.0, 0.0, 0.5]], requires_grad=True)
    made = bits(scores)
    assert made.tolist() == [[-1.0, 0.0, 1.0]]
    made.sum().backward()
    share = scores.detach().sigmoid()
    torch.testing.assert_close(scores.grad, share * (1 - share))


def test_the_loss_is_of_all_pairs_of_views_and_of_a_lone_view_with_itself() -> None:
    code = torch.randn(12, 6)

    def loss(which: list[int]) -> torch.Tensor:
        own = torch.cat([code[4 * view : 4 * view + 4] for view in which])
        return HASHING.loss(Out(own, code=own), Batch({}, None, torch.arange(len(own)), len(which)))

    assert loss([0, 1, 2]) == pytest.approx(float(loss([0, 1]) + loss([0, 2]) + loss([1, 2])) / 3)
    assert loss([0]) == loss([0, 0])


def test_training_sees_the_rows_numbers_and_scoring_the_labels() -> None:
    task = tiny_task()
    assert task.train_labels.tolist() == list(range(task.n_train))
    assert task.test_batches().y.tolist() == task.data.test.y.tolist()
    assert task.database_batches().y.tolist() == task.data.train.y.tolist()


def test_a_step_has_two_views_each_augmented_by_itself() -> None:
    from kdbench.contract import Stage

    batch = tiny_task().loader(Stage("s", losses=lambda batch, at: {}, groups=[], epochs=1), 1).draw(0)
    assert batch.views == 2
    assert torch.equal(batch.index[:16], batch.index[16:])
    assert not torch.equal(batch.view(0).x["image"], batch.view(1).x["image"])


def test_the_database_is_all_training_rows_whatever_the_student_trains_on() -> None:
    task = tiny_task(per_class=2)
    assert task.n_train == 20
    assert len(task.database_batches().y) == 60


class Answers(torch.nn.Module):
    """Gives rows of a table by the number that stands in a pixel."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, batch: Batch) -> Out:
        code = self.table[batch.x["image"][:, 0, 0, 0].round().long()]
        return Out(code, emb=bits(code), code=code)


def test_both_searches_are_the_brute_force_ones() -> None:
    """Ranks by hand: ties in the order of the database, k, a score of 0 that counts as 1."""
    y, number = torch.tensor([0, 1, 0, 1, 0]), torch.arange(5.0).view(5, 1, 1, 1)
    test = Rows({"image": number[:2] + 5}, torch.tensor([0, 1]))
    data = Dataset("made", Rows({"image": number}, y), test, 2, {"image": Transform((0.0,), (1.0,))})
    body = task_spec(SETTING).model_dump()
    body["score"] = {"primary": "map", "also": ["map_teacher_database"], "k": 3}
    task = Task(TaskSpec.model_validate(body), data, torch.device("cpu"), 0, Keeper(Path("x"), Path("x"), {}))
    signs = [[1, 1], [1, 1], [1, -1], [-1, -1], [-1, 1], [0, 1], [-1, -1]]
    student, teacher = Answers(torch.tensor(signs).float()), Answers(-torch.tensor(signs).float())
    scorer = Scorer(task, {"image": teacher})
    found = scorer.all(student)
    # Query (1, 1), class 0: rows 0, 1, 2 of classes 0, 1, 0. Query (-1, -1), class 1: rows 3, 2, 4 of classes 1, 0, 0.
    assert found["map"] == pytest.approx(100 * ((1 + 2 / 3) / 2 + 1) / 2)
    assert scorer.each is not None
    assert scorer.each.tolist() == pytest.approx([100 * (1 + 2 / 3) / 2, 100])  # a query's own
    # The teacher's codes are the opposite ones: rows 3, 2, 4 and rows 0, 1, 2.
    assert found["map_teacher_database"] == pytest.approx(100 * ((1 / 2 + 2 / 3) / 2 + 1 / 2) / 2)
    assert Scorer(task).all(student).keys() == {"map"}


def test_metrics_without_meaning_are_refused() -> None:
    def parts(train: list[int], test: list[int]) -> list[Rows]:
        return [Rows({}, torch.tensor(y)) for y in (train, test)]

    assert HASHING.unscorable(*parts([0, 1], [1]), 2) is None
    assert "score.k=3 is more than the 2 rows" in str(HASHING.unscorable(*parts([0, 1], [1]), 3))
    assert "no row of the queries' class 2, 3" in str(HASHING.unscorable(*parts([0, 1], [1, 2, 3]), None))


def test_k_above_the_database_is_one_line(tmp_path: Path) -> None:
    config = run_config("plain", "digits/hash", ["score.k=1001"])
    with pytest.raises(UserError, match=r"digits/hash: score.k=1001 is more than the 1000 rows of the database"):
        load_data(config, None, Home(tmp_path), Request(config, 0, torch.device("cpu"), Home(tmp_path)).progress)
    with pytest.raises(UserError, match=r"score\.k belongs to metrics that search training rows"):
        run_config("plain", "digits/few-shot", ["score.k=5"])


@pytest.mark.parametrize("wanted", [1, 17, 0])
def test_bits_out_of_range_are_one_line(wanted: int, tmp_path: Path) -> None:
    config = run_config("plain", "digits/hash", [f"pair.student.net='hash{wanted}:convnet_w4'"], smoke=True)
    with pytest.raises(UserError, match=f"'convnet_w4' has 2 to 16 bits, .*; {wanted} are asked for"):
        run.run_seed(Request(config, 0, torch.device("cpu"), Home(tmp_path), overhead="off"))


def test_a_run_is_not_shared() -> None:
    with pytest.raises(UserError, match="plain runs in one process: its task's loss compares the rows of a batch"):
        require_shared(run_config("plain", "digits/hash"), 2)


def test_plain_is_scored_against_the_teachers_database_too(tmp_path: Path) -> None:
    config = run_config("plain", "digits/hash", smoke=True)
    record = run.run_seed(Request(config, 0, torch.device("cpu"), Home(tmp_path), overhead="off"))
    assert record.status == "ok", record.error
    assert record.metrics.last.keys() == {"map", "map_teacher_database"}
    made = export(
        record.run_id, "safetensors", "student", tmp_path / "a.safetensors", Home(tmp_path), None, Progress.silent()
    )
    assert (made.about.scored.primary, made.about.scored.also) == ("map", ())  # a file answers for no teacher
    for method, task in (("kd", "digits/hash"), ("brcd", "digits")):
        config = run_config(method, task, smoke=True)
        refused = run.run_seed(Request(config, 0, torch.device("cpu"), Home(tmp_path), overhead="off"))
        assert refused.status == "not_applicable"


def test_answers_are_bits() -> None:
    code = torch.tensor([[0.0, -1e-9, 3.0]])
    found = HASHING.answer(Out(code, code=code), Batch({}, None, torch.arange(1)), Scaling())
    assert found.tolist() == [[1, -1, 1]]
    assert found.dtype is torch.int8
