"""Methods of detectors on real ones: what runs of the teacher, weights of 0, copies of the teacher, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdbench.checks.tiny import Tiny, declared, method_config, tiny
from kdbench.contract import At, Batch, NotApplicable
from kdbench.engine.assemble import needs_of
from kdbench.engine.trainer import Trainer
from kdbench.specs import config, registry

KIND = "detection"
PYRAMIDS = ("fitnet", "reviewkd", "pkd", "cwd", "fgd", "mgd", "defeat-neck")
HEADS = ("kd_dense", "crosskd", "crosskd-fcos", "crosskd+pkd")
WEIGHTS = {
    "fitnet": ["hint_weight"],
    "reviewkd": ["review_weight"],
    "pkd": ["pearson_weight"],
    "cwd": ["channel_weight"],
    "fgd": ["inside_weight", "outside_weight", "attention_weight", "relation_weight"],
    "mgd": ["generation_weight"],
    "kd_dense": ["class_weight", "box_weight"],
    "crosskd": ["class_weight", "box_weight"],
    "defeat": ["neck_weight", "neck_back_weight", "head_weight", "head_back_weight"],
    "defeat-neck": ["neck_weight", "neck_back_weight"],
}
TWO_STAGES = ("defeat", "dkd_roi")


def scene(name: str, **values: Any) -> Tiny:
    """The tiny task of detection with some hyper-parameters of a method."""
    ref = registry.method(name)
    chosen = dict(declared(ref)).get(KIND, method_config(ref))
    if values:
        chosen = config.method_config(ref, {**chosen.params, **values})
    return tiny(ref, chosen, needs_of(chosen), KIND)


@contextmanager
def called(module: torch.nn.Module) -> Iterator[list[str]]:
    """Within the block, the names of a module's parts that run."""
    seen: list[str] = []

    def noting(name: str) -> Any:
        return lambda *_: seen.append(name)

    hooks = [part.register_forward_hook(noting(name)) for name, part in module.named_modules()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def rows(method: Any) -> Batch:
    batch: Batch = method.task.wrap(method.task.rows(torch.arange(8)))
    return batch


def at() -> At:
    return At(0, 0, 1, 0.0, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [*PYRAMIDS, *HEADS, "real"])
def test_what_runs_of_the_teacher(tmp_path: Path, name: str) -> None:
    method = scene(name).prepare(tmp_path).method.train()
    teacher: Any = method.teacher
    with called(teacher.head) as seen, called(method.student.head) as own:
        terms = method.losses(rows(method), at())
    assert all(term.isfinite() for term in terms.values())
    assert own, "the student's head makes the detector's loss"
    assert bool(seen) == (name not in PYRAMIDS)
    with called(teacher.neck) as neck:
        teacher(rows(method))
    assert neck


def trained(name: str, folder: Path, **values: Any) -> dict[str, Tensor]:
    made = scene(name, **values).prepare(folder)
    made.method.to(made.task.device)
    Trainer(made.method, made.task, folder / "run").run()
    return {key: held.clone() for key, held in made.method.student.state_dict().items()}


@pytest.mark.parametrize("name", TWO_STAGES)
def test_a_teachers_second_stage_looks_at_the_students_proposals_alone(tmp_path: Path, name: str) -> None:
    method = scene(name).prepare(tmp_path).method.train()
    teacher: Any = method.teacher
    seen: list[int] = []
    teacher.head.roi.box_head.register_forward_hook(lambda module, given, result: seen.append(len(result)))
    with called(teacher.head) as parts:
        terms = method.losses(rows(method), at())
    assert all(term.isfinite() for term in terms.values())
    drawn = method.student.head.roi.fg_bg_sampler.rows
    assert len(seen) == 1
    assert seen[0] <= 8 * drawn
    assert not any(part.startswith("rpn") for part in parts)


def test_methods_of_two_stages_say_why_they_do_not_apply_to_one(tmp_path: Path) -> None:
    from kdbench.engine.applicability import nets_and_data

    made = scene("pkd").prepare(tmp_path)
    for name in TWO_STAGES:
        chosen = method_config(registry.method(name))
        with pytest.raises(NotApplicable, match="offers no proposals, roi, roi_labels"):
            nets_and_data(needs_of(chosen), made.task, made.method.student, made.method.teachers)


@pytest.mark.slow
@pytest.mark.parametrize("name", WEIGHTS)
def test_with_weights_of_0_a_student_is_plains_bit_for_bit(tmp_path: Path, name: str) -> None:
    if name == "defeat":
        pytest.skip("it runs on two stages; test_detection_runs trains it")
    plain = trained("plain", tmp_path / "plain")
    own = trained(name, tmp_path / "own", **dict.fromkeys(WEIGHTS[name], 0.0))
    assert plain.keys() == own.keys()
    assert all(torch.equal(plain[key], own[key]) for key in plain)


@pytest.mark.parametrize("name", ["fitnet", "pkd", "cwd", "fgd", "kd_dense", "crosskd", "crosskd-fcos", "crosskd+pkd"])
def test_a_copy_of_the_teacher_has_the_detectors_loss_alone(tmp_path: Path, name: str) -> None:
    """In eval mode, in which the student's batch norms do as the teacher's."""
    made = scene(name)
    spec = made.config.task
    pair = spec.pair.model_copy(update={"student": spec.pair.student.model_copy(update={"net": spec.teacher_net})})
    alike = replace(made, config=replace(made.config, task=spec.model_copy(update={"pair": pair})))
    method = alike.prepare(tmp_path).method
    student: Any = method.student
    student.load_state_dict(method.teacher.state_dict())
    batch = rows(method)
    out = student.eval()(batch)  # what it is asked for, without losses
    losses = student.train()(batch).dense.losses
    student.forward = lambda _: out._replace(dense=out.dense._replace(losses=losses))
    terms = method.losses(batch, at())
    assert all(terms[term].item() == pytest.approx(0, abs=1e-4) for term in terms if term != "task")
    assert terms["task"] > 0


def test_other_kinds_of_task_are_refused_with_the_reason() -> None:
    from kdbench.engine.applicability import kind_and_roles
    from kdbench.specs.config import run_config

    for name in ("kd_dense", "pkd", "cwd", "fgd", "mgd", "crosskd", "defeat", "dkd_roi", "real"):
        chosen = run_config(name, "digits")
        with pytest.raises(NotApplicable, match=r"runs on detection .*tasks, this one is a classification task"):
            kind_and_roles(needs_of(chosen.method), chosen.task)


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("crosskd", {"reuse_after": 3}, "taps:3"),
        ("reviewkd", {"student_features": "maps", "teacher_features": "maps"}, "emb"),
        ("reviewkd", {"kl_weight": 1.0}, "logits"),
    ],
)
def test_what_a_detector_does_not_offer_is_named(name: str, values: dict[str, Any], why: str) -> None:
    with pytest.raises(NotApplicable, match=why):
        scene(name, **values)
