"""Which of a task's teachers a method reads."""

from __future__ import annotations

import pytest

from kdbench.contract import ALL_TEACHERS, ANY_TEACHER, Needs, NotApplicable
from kdbench.engine.offers import kind_and_roles


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
    needs = Needs(kinds=frozenset({"crossmodal"}), teachers=needed)
    assert kind_and_roles(needs, "crossmodal", ["image", "audio"]) == read


@pytest.mark.parametrize("needed", [ANY_TEACHER, ALL_TEACHERS])
def test_a_task_without_teachers_is_refused(needed):
    with pytest.raises(NotApplicable, match="needs a teacher"):
        kind_and_roles(Needs(teachers=(needed,)), "classification", [])


def test_a_role_the_task_lacks_is_named_with_those_it_has():
    with pytest.raises(NotApplicable, match="role 'audio', the task has image"):
        kind_and_roles(Needs(teachers=("audio",)), "classification", ["image"])
