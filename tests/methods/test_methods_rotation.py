"""sskd and hsakd: rows kept, joint labels, stages that train the teacher's side, refusal where rotation matters."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kdbench.checks.tiny import method_config, tiny
from kdbench.contract import NotApplicable
from kdbench.engine.assemble import hyper_parameters
from kdbench.engine.stage import StageRun
from kdbench.engine.task import build_network, seeded
from kdbench.engine.trainer import Trainer
from kdbench.methods.hsakd.adapter import Scores, agreement
from kdbench.methods.shared.heads import joint_labels
from kdbench.methods.sskd.adapter import head_loss, kept, kept_divergence, own_image, similarity, turned
from kdbench.specs import registry

METHODS = ["sskd", "hsakd", "hsakd-joint", "hsakd-online"]


def small(name):
    """The method on a tiny task whose data say that they may be rotated."""
    ref = registry.method(name)
    config = method_config(ref)
    return tiny(ref, config, ref.adapter().needs(hyper_parameters(config)), "classification")


@pytest.mark.parametrize("name", METHODS)
def test_data_that_are_not_rotation_safe_are_refused(name, tmp_path):
    task = small(name)
    digits = replace(task, data=replace(task.data, properties=frozenset({"rgb"})))
    with pytest.raises(NotApplicable, match="the data set is not rotation_safe"):
        digits.prepare(tmp_path)


def test_all_correct_rows_are_kept_and_a_share_of_the_wrong_ones_by_rank():
    scores = torch.tensor([[3.0, 2, 1], [2, 3, 1], [1, 2, 3], [3, 1, 2], [2, 1, 3]])
    truth = torch.tensor([0, 0, 0, 1, 1])  # ranks 0, 1, 2, 2, 2
    assert kept(scores, truth, 1.0).all()
    assert kept(scores, truth, 0.5).tolist() == [True, True, True, False, False]  # 2 of 4, the earlier of equal ranks
    assert kept(scores, truth, 0.0).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("name", ["hsakd", "hsakd-joint"])
def test_networks_of_unequal_numbers_of_stages_are_refused(name, tmp_path):
    task = small(name)
    with seeded(0, "teacher"):
        vgg = build_network("vgg8", "image", task.data)  # four stages, the student's are three
    teacher = replace(task.teachers["image"], net=vgg.eval().requires_grad_(False))
    with pytest.raises(NotApplicable, match="3 stages and the teacher 4; heads pair one to one"):
        replace(task, teachers={"image": teacher}).prepare(tmp_path)


def test_no_kept_row_gives_zero_and_a_zero_gradient():
    student = torch.randn(3, 4, requires_grad=True)
    loss = kept_divergence(student, torch.randn(3, 4), 2.0, torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert not student.grad.any()


def test_rows_of_turned_images_are_image_major():
    rows = torch.arange(8).view(4, 2)  # view r of image n is 2 r + n
    assert turned(rows).tolist() == [2, 4, 6, 3, 5, 7]
    assert own_image(2, rows.device).tolist() == [0, 0, 0, 1, 1, 1]


def test_the_teacher_heads_loss_has_the_floor_of_untempered_cosines():
    """Own image at cosine 1, all others at 0: log(e + N - 1) - 1."""
    embeddings = torch.eye(64).expand(4, 64, 64)
    assert head_loss(similarity(embeddings)).item() == pytest.approx(3.185, abs=1e-3)


def test_joint_labels_are_class_major():
    assert joint_labels(torch.tensor([0, 3])).tolist() == [[0, 12], [1, 13], [2, 14], [3, 15]]


def test_agreement_sums_over_heads_and_refuses_unequal_numbers_of_them():
    def scores(heads):
        return Scores(torch.randn(4, 2, 3), [torch.randn(4, 2, 12) for _ in range(heads)])

    one = scores(1)
    other = scores(1)
    twice = agreement(one._replace(joint=one.joint * 2), other._replace(joint=other.joint * 2), 3.0)
    alone = agreement(one._replace(joint=[]), other._replace(joint=[]), 3.0)
    assert (twice - alone).item() == pytest.approx(2 * (agreement(one, other, 3.0) - alone).item(), rel=1e-5)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        agreement(scores(1), scores(2), 3.0)


@pytest.mark.parametrize(("name", "ledgers"), [
    ("sskd", ["warmup_phase", "distill"]),
    ("hsakd", ["teacher_train", "distill"]),
    ("hsakd-joint", ["teacher_train", "distill"]),
    ("hsakd-online", ["distill"]),
])  # fmt: skip
def test_four_views_of_each_row_and_a_stage_of_the_teachers_own(name, ledgers, tmp_path):
    prepared = small(name).prepare(tmp_path)
    seen = []
    for stage in prepared.method.stages():
        prepared.method.train()
        run = StageRun(prepared.method, stage, prepared.task)
        batch = run.draw()
        assert batch.views == 4
        upright, quarter = (batch.view(v).x["image"] for v in (0, 1))
        if stage.views.where == "final":
            assert torch.equal(quarter, upright.rot90(1, (-2, -1)))
        assert torch.equal(batch.view(3).y, batch.view(0).y)
        seen.append(stage.ledger)
        if stage.ledger == "distill" and name.startswith("hsakd") and name != "hsakd-online":
            assert not prepared.method.taught.training
            assert prepared.method.heads[0].training
    assert seen == ledgers


@pytest.mark.parametrize("name", ["sskd", "hsakd"])
def test_a_second_run_of_the_task_reuses_the_teachers_side(name, tmp_path):
    reports = []
    for _ in range(2):
        prepared = small(name).prepare(tmp_path / "home")
        prepared.task._keeper.run = tmp_path / f"run{len(reports)}"
        reports.append(Trainer(prepared.method, prepared.task).run())
    assert [report.stages[0].steps > 0 for report in reports] == [True, False]
    assert [entry["reused"] for entry in prepared.task.kept] == [True]
    assert reports[0].curve[-1]["losses"] == reports[1].curve[-1]["losses"]


def test_the_teacher_is_trained_in_the_joint_form_alone(tmp_path):
    changed = {}
    for name in ("hsakd", "hsakd-joint"):
        task = small(name)
        before = task.teachers["image"].net.state_dict()
        prepared = task.prepare(tmp_path / name)
        Trainer(prepared.method, prepared.task).run()
        after = prepared.method.teacher.state_dict()
        changed[name] = any(not torch.equal(before[key], after[key]) for key in before)
    assert changed == {"hsakd": False, "hsakd-joint": True}
