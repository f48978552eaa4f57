"""Neck and head of a teacher as where a student starts, of every net of dense prediction."""

from __future__ import annotations

import pytest
import torch

from kdbench import models
from kdbench.checks.watch import first_difference
from kdbench.contract import Batch, Network, NotApplicable

SHAPE = (3, 64, 64)
NETS = {
    "fcos_c8s8-32h1": ["neck", "head"],
    "retinanet_c8s8-32h1": ["neck", "head"],
    "gfl_c8s8-32h1": ["neck", "head"],
    "obb_c8s8-32h1": ["neck", "head"],
    "faster_rcnn_c8s4-16a4p20r16f16": ["neck", "head"],
    "mask_rcnn_c8s4-16a4p20r16f16m1": ["neck", "head"],
    "semfpn_c8s4-32": ["head"],
}


def pair(form: str, teacher: str = "") -> tuple[Network, Network]:
    names = [f"{form}:cell_w4d1", f"{teacher or form}:cell_w8d1"]
    return tuple(models.build(name, SHAPE, 3) for name in names)  # type: ignore[return-value]


@pytest.mark.parametrize("form", NETS)
def test_a_student_of_any_kind_starts_with_its_teachers_neck_and_head(form: str) -> None:
    student, teacher = pair(form)
    before = {name: value.clone() for name, value in student.body.state_dict().items()}
    student.init_from(teacher, NETS[form])
    for part in NETS[form]:
        mine, theirs = (getattr(net, part).state_dict() for net in (student, teacher))
        read = [name for name in mine if "inner_blocks" in name and mine[name].shape != theirs[name].shape]
        assert read or part == "head"  # what reads a backbone of another width stays
        kept = [{name: one for name, one in side.items() if name not in read} for side in (mine, theirs)]
        assert kept[0]
        assert first_difference(*kept) is None
    assert first_difference(before, student.body.state_dict()) is None
    student.eval()
    student(Batch({"image": torch.zeros(1, *SHAPE)}, torch.zeros(1), torch.arange(1)))


def test_parts_that_do_not_fit_are_not_applicable() -> None:
    student, teacher = pair("fcos_c8s8-32h1", "fcos_c16s8-32h1")
    with pytest.raises(NotApplicable, match="its head cannot start from the teacher's: size mismatch"):
        student.init_from(teacher, ["head"])
    student, teacher = pair("fcos_c8s8-32h1", "gfl_c8s8-32h1")
    with pytest.raises(NotApplicable, match="its head cannot start from the teacher's"):
        student.init_from(teacher, ["head"])
    student, teacher = pair("semfpn_c8s4-32")
    with pytest.raises(NotApplicable, match="has the parts body, head, no neck"):
        student.init_from(teacher, ["neck"])
