"""Which of a task's teachers a method reads."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kdbench.base.home import Home, data_folder
from kdbench.base.progress import Progress
from kdbench.contract import ALL_TEACHERS, ANY_TEACHER, TEACHER_INPUT, Needs, Network, NotApplicable, Out
from kdbench.engine.applicability import inputs, kind_and_roles, nets
from kdbench.engine.assemble import load_data
from kdbench.specs import registry
from kdbench.specs.config import run_config
from kdbench.specs.task import TaskSpec


def of(*roles: str, kind: str = "classification") -> TaskSpec:
    """The few-shot digits with teachers of some roles."""
    spec = registry.task("digits/few-shot" if kind == "classification" else "digits/angle")
    (teacher,) = spec.pair.teachers.values()
    return spec.model_copy(update={"pair": spec.pair.model_copy(update={"teachers": dict.fromkeys(roles, teacher)})})


@pytest.mark.parametrize(
    ("needed", "read"),
    [
        ((), []),
        ((ANY_TEACHER,), ["image"]),
        ((ALL_TEACHERS,), ["image", "audio"]),
        (("audio",), ["audio"]),
        (("audio", ALL_TEACHERS), ["audio", "image"]),
    ],
)
def test_roles_of_a_task_with_two_teachers(needed, read):
    assert kind_and_roles(Needs(teachers=needed), of("image", "audio")) == read


@pytest.mark.parametrize("needed", [ANY_TEACHER, ALL_TEACHERS])
def test_a_task_without_teachers_is_refused(needed):
    with pytest.raises(NotApplicable, match="needs a teacher"):
        kind_and_roles(Needs(teachers=(needed,)), of())


def test_a_role_the_task_lacks_is_named_with_those_it_has():
    with pytest.raises(NotApplicable, match="role 'audio', the task has image"):
        kind_and_roles(Needs(teachers=("audio",)), of("image"))


def test_a_kind_that_a_method_does_not_serve_is_named():
    with pytest.raises(NotApplicable, match="it runs on classification tasks, this one is a regression task"):
        kind_and_roles(Needs(), of("image", kind="regression"))
    assert kind_and_roles(Needs(kinds=None), of("image", kind="regression")) == ["image"]


@pytest.mark.parametrize(
    ("task", "refused"),
    [("digits/few-shot", "other"), ("digits/low-res", "other"), ("digits/profiles", "same"), ("av-digits", "same")],
)
def test_inputs_of_student_and_teacher(task, refused):
    """A smaller copy of the teacher's picture is one picture with it; its profiles, or a sound, are not."""
    spec = registry.task(task)
    if task == "av-digits" and not os.environ.get("KDBENCH_DATA"):
        pytest.skip("KDBENCH_DATA names no data folder")
    data = load_data(run_config("plain", task), data_folder(), Home(Path()), Progress.silent())
    for asked in ("any", "same", "other"):
        if asked == refused:
            with pytest.raises(NotApplicable, match=r"must read (one picture|different inputs)"):
                inputs(Needs(inputs=asked), spec, list(spec.pair.teachers), data)
        else:
            inputs(Needs(inputs=asked), spec, list(spec.pair.teachers), data)


def test_a_teacher_of_stored_features_shows_no_picture():
    """What rebuilds the teacher's picture cannot where the teacher reads rows of numbers."""
    needs = Needs(batch=frozenset({TEACHER_INPUT}))
    pictures = load_data(run_config("plain", "digits/low-res"), None, Home(Path()), Progress.silent())
    inputs(needs, registry.task("digits/low-res"), ["image"], pictures)
    spec = registry.task("digits/profiles")
    teacher = spec.pair.teachers["image"].model_copy(update={"input": "profiles"})
    spec = spec.model_copy(update={"pair": spec.pair.model_copy(update={"teachers": {"image": teacher}})})
    rows = load_data(run_config("plain", "digits/profiles"), None, Home(Path()), Progress.silent())
    with pytest.raises(NotApplicable, match=r"picture that the teacher sees, and profiles has rows of .*2, 8"):
        inputs(needs, spec, ["image"], rows)


def test_nets_without_attention_are_refused_by_name():
    ref = registry.method("askd")
    needs = ref.adapter().needs(ref.card.typed(ref.card.defaults()))
    task = SimpleNamespace(probe=lambda net: Out(torch.zeros(2, 3)))
    with pytest.raises(NotApplicable, match="the student convnet_w8 offers no attention"):
        nets(needs, task, Network(), {}, "convnet_w8")
