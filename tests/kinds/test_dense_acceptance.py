"""The twelve checks that dense prediction stands by, where each is tested, and those tested nowhere else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kdbench import kinds
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.checks import check_task, tasks
from kdbench.checks.tiny import method_config, tiny
from kdbench.contract import Batch, NotApplicable, Objects
from kdbench.engine.applicability import nets_and_data
from kdbench.engine.assemble import needs_of
from kdbench.kinds.base import Evidence
from kdbench.kinds.detection import Detections, Rules
from kdbench.parallel.ranks import Ranks
from kdbench.specs import registry
from kdbench.specs.task import TaskSpec

TESTS = Path(__file__).parents[1]
SIZE = (60, 80)

CHECKS = {
    "a method of weight 0 is plain bit for bit, with one and two stages and masks": (
        "engine/test_detection_runs.py::test_a_method_of_weight_0_is_plain_bit_for_bit",
        "methods/test_methods_detectors.py::test_with_weights_of_0_a_student_is_plains_bit_for_bit",
        "kinds/test_instance_segmentation.py::test_methods_of_detection_run_and_of_weight_0_are_plain_bit_for_bit",
        "kinds/test_segmentation.py::test_a_method_of_weight_0_is_plain_bit_for_bit",
    ),
    "a copy of the teacher has no loss but its own, or no gradient of it": (
        "methods/test_methods_detectors.py::test_a_copy_of_the_teacher_has_the_detectors_loss_alone",
        "methods/test_methods_pyramids.py::test_a_copy_of_the_teacher_has_no_loss",
        "kinds/test_segmentation.py::test_a_copy_of_the_teacher_has_no_loss_but_its_own",
    ),
    "the truth scores 100, shifted by half a box 0, nothing 0; empty pictures change false positives alone": (
        "kinds/test_detection.py::test_truth_scores_100_shifted_by_half_nothing_and_so_do_no_detections",
        "kinds/test_detection.py::test_a_picture_without_objects_changes_false_positives_alone",
        "kinds/test_instance_segmentation.py::test_truth_scores_100_and_no_detections_nothing",
        "kinds/test_segmentation.py::test_truth_scores_100_whatever_is_said_of_ignored_pixels",
        "kinds/test_oriented.py::test_truth_scores_100_twice_the_same_counts_once_and_a_turned_box_is_no_find",
    ),
    "AP is pycocotools', with ties, crowds and three classes": (
        "kinds/test_detection.py::test_ap_is_pycocotools_with_ties_crowds_and_three_classes",
        "kinds/test_instance_segmentation.py::test_ap_of_masks_is_pycocotools_with_ties_crowds_and_three_classes",
    ),
    "mirrored twice is as before; boxes and masks move alike": (
        "data/test_moved.py::test_a_mirror_twice_and_a_transposition_twice_are_nothing",
        "data/test_masks.py::test_flipped_twice_is_as_before",
        "data/test_masks.py::test_a_moved_masks_box_is_the_moved_box_and_pixels_go_with_it",
        "kinds/test_oriented.py::test_corners_of_a_moved_box_are_the_moved_corners",
    ),
    "the order of a picture's objects changes no loss and no AP": (
        "models/test_models_detector.py::test_order_of_a_pictures_objects_changes_no_loss",
        "models/test_models_two_stage.py::test_order_of_a_pictures_objects_changes_no_loss",
        "kinds/test_oriented.py::test_losses_do_not_depend_on_the_order_of_objects_and_empty_pictures_train",
        "kinds/test_dense_acceptance.py::test_the_order_of_a_pictures_objects_changes_no_ap",
    ),
    "a stopped run goes on to the same bits": (
        "engine/test_detection_runs.py::test_a_stopped_run_goes_on_to_the_same_bits",
        "kinds/test_segmentation.py::test_a_stopped_run_goes_on_to_the_same_bits",
    ),
    "a batch of empty pictures trains": (
        "engine/test_detection_runs.py::test_pictures_without_objects_train",
        "models/test_models_detector.py::test_a_batch_of_empty_pictures_has_losses_with_gradients",
        "models/test_models_two_stage.py::test_a_batch_of_empty_pictures_has_losses_with_gradients_and_crowds_are_no_objects",
    ),
    "objects are packed, sliced, joined and shared by two ranks, and are what they were": (
        "contract/test_contract_objects.py::test_what_is_sliced_and_joined_is_what_it_was",
        "data/test_masks.py::test_picked_kept_joined_and_repeated_masks_stay_with_their_objects",
        "kinds/test_dense_acceptance.py::test_two_ranks_share_a_batchs_objects",
    ),
    "golden vectors, the tree's and those held out": ("test_parity.py::test_values_and_gradients_are_those_stored",),
    "what reads proposals or bins does not apply where there are none, and says so": (
        "methods/test_methods_detectors.py::test_methods_of_two_stages_say_why_they_do_not_apply_to_one",
        "kinds/test_dense_acceptance.py::test_distributions_are_not_read_of_boxes_without_any",
    ),
    "fewer detections than the densest test picture holds are refused": (
        "kinds/test_detection.py::test_more_objects_than_detections_that_count_are_refused",
        "kinds/test_dense_acceptance.py::test_too_few_detections_are_a_broken_rule_of_the_task",
    ),
}


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_has_its_tests(check: str) -> None:
    for place in CHECKS[check]:
        file, name = place.split("::")
        assert re.search(rf"^def {name}\(", (TESTS / file).read_text(), re.MULTILINE), place


@pytest.mark.parametrize("kind", ["detection", "oriented"])
def test_the_order_of_a_pictures_objects_changes_no_ap(kind: str) -> None:
    """Several detections overlap several objects, so that it could matter which is taken first."""
    from kdbench.contract import OrientedObjects
    from kdbench.kinds.oriented import Found

    boxes = [[30.0, 30.0, 20.0, 10.0], [34.0, 30.0, 20.0, 10.0], [32.0, 32.0, 20.0, 10.0]]
    near = torch.tensor([[31.0, 30.0, 20.0, 10.0], [33.0, 31.0, 20.0, 10.0], [50.0, 40.0, 9.0, 8.0]])
    scores, labels, counts = torch.tensor([0.9, 0.8, 0.8]), torch.zeros(3, dtype=torch.int64), torch.tensor([3])
    values = set()
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        if kind == "oriented":
            truth: Objects = OrientedObjects.of([[[0, *boxes[n], 10.0] for n in order]], SIZE)
            found: object = Found(torch.cat([near, torch.full((3, 1), 10.0)], 1), scores, labels, counts, 1)
        else:
            truth = Objects.of([[[0, *boxes[n][:2], boxes[n][0] + 20, boxes[n][1] + 10] for n in order]], SIZE)
            there = torch.cat([near[:, :2], near[:, :2] + near[:, 2:]], 1)
            found = Detections(there, scores, labels, counts, 1, Rules())
        primary = "obb_ap50" if kind == "oriented" else "ap"
        values.add(kinds.kind(kind).score([primary], Evidence(found, truth))[primary])
    assert len(values) == 1
    assert 0 < values.pop() < 100


def test_two_ranks_share_a_batchs_objects() -> None:
    """Of both views each rank has the same pictures; put together again they are the batch's."""
    one = Objects.of([[[0, 1, 1, 9, 9]], [], [[1, 2, 2, 8, 8], [0, 5, 5, 20, 20]]], SIZE)
    one = replace(one, ignore=torch.tensor([False, True, False]), area=torch.tensor([64.0, 36.0, 225.0]))
    x = torch.arange(6.0)[:, None]
    batch = Batch({"image": x}, one.repeat(2), torch.arange(3).repeat(2), views=2)
    shares = [Ranks(rank, 2).split(batch) for rank in range(2)]
    assert [share.index.tolist() for share in shares] == [[0, 1, 0, 1], [2, 2]]
    for share in shares:
        wanted = batch.y[share.x["image"][:, 0].long()]
        assert share.y.tolist() == wanted.tolist()
        for name, held in wanted.tensors().items():
            assert torch.equal(share.y.tensors()[name], held), name
    views = [share.y[:n].join(share.y[n:]) for share, n in zip(shares, (2, 1), strict=True)]
    again = views[0][:2].join(views[1][:1])
    assert all(torch.equal(again.tensors()[name], held) for name, held in one.tensors().items())


def test_distributions_are_not_read_of_boxes_without_any(tmp_path: Path) -> None:
    pkd, ld = registry.method("pkd"), method_config(registry.method("ld"))
    chosen = method_config(pkd)
    made = tiny(pkd, chosen, needs_of(chosen), "detection").prepare(tmp_path)
    with pytest.raises(NotApplicable, match=r"offers no .*bins"):
        nets_and_data(needs_of(ld), made.task, made.method.student, made.method.teachers)


def test_too_few_detections_are_a_broken_rule_of_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = registry.task("shapes").model_dump(mode="json")
    body["score"]["rules"] = {"detections": 1}
    spec = TaskSpec.model_validate(body)
    monkeypatch.setattr(registry, "task", lambda name: spec)
    monkeypatch.setattr(tasks, "trains", lambda *args: None)
    found = {one.rule: one.message for one in check_task("shapes", Home(tmp_path), None, Progress.silent())
             if one.outcome == "failed"}  # fmt: skip
    assert set(found) == {"kind"}
    assert "1 detections of a picture count; raise score.rules.detections to" in found["kind"]
